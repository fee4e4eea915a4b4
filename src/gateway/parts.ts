// What the gateway is made of, and what its routes get to see of it.

import type {
  FastifyBaseLogger,
  FastifyInstance,
  RawReplyDefaultExpression,
  RawRequestDefaultExpression,
  RawServerDefault,
} from 'fastify';
import type { ZodTypeProvider } from 'fastify-type-provider-zod';
import type { Breakers } from '../calls/breakers.ts';
import type { RerateReport, RerateRequest } from '../calls/rerate.ts';
import type { TaskClient } from '../client/task-client.ts';
import type { Probes } from '../health.ts';
import type { Logger } from '../log.ts';
import type { Metrics } from '../metrics.ts';
import type { Stores } from '../stores/stores.ts';
import type { TaskPlan } from '../task/decision.ts';
import type { TaskInput } from '../task/input.ts';
import type { OpenStreams } from './open-streams.ts';
import type { Presents } from './presents.ts';

export type GatewayParts = {
  readonly stores: Pick<
    Stores,
    | 'tasks'
    | 'events'
    | 'ledger'
    | 'limits'
    | 'accounts'
    | 'approvals'
    | 'erase'
    | 'queueCounts'
    | 'rateReports'
    | 'liveFeed'
  >;
  readonly client: Pick<
    TaskClient,
    'start' | 'cancel' | 'describe' | 'failure' | 'decideApproval' | 'raiseBudget' | 'budgetChanged'
  >;
  readonly plan: (input: TaskInput) => TaskPlan;
  /** Brings the ledger to the present price list. */
  readonly rerate: (request: RerateRequest) => Promise<RerateReport>;
  readonly breakers: Pick<Breakers, 'report'>;
  readonly probes: Probes;
  readonly metrics: Pick<Metrics, 'registry' | 'streamReaders' | 'readersClosed'>;
  readonly log: Logger;
  /** Whether an error of a store says that it is away. */
  readonly isStoreAway: (error: unknown) => boolean;
  readonly settings: {
    readonly auth: 'keys' | 'off';
    readonly adminKey: string | undefined;
    /** Between two comments on an idle stream, in milliseconds. */
    readonly heartbeatMs: number;
    /** How long the connection of a stream may take nothing of what it was given, in milliseconds; left out: 15 seconds. */
    readonly deadAfterMs?: number;
    /** How long a stopping gateway lets requests finish, in milliseconds; left out: ten seconds. */
    readonly shutdownGraceMs?: number;
  };
};

export type RouteParts = GatewayParts & {
  readonly stores: { readonly presents: Presents };
  readonly streams: OpenStreams;
  /** Whether there is such a task; read once for all who ask at the same time. */
  readonly isKnown: (taskId: string) => Promise<boolean>;
};

export type App = FastifyInstance<
  RawServerDefault,
  RawRequestDefaultExpression,
  RawReplyDefaultExpression,
  FastifyBaseLogger,
  ZodTypeProvider
>;
