// Governed calls of one test: real stores, models that answer what the test wrote down.

import { createBreaker } from '../../src/calls/breaker.ts';
import type { CallContext, CallDependencies, CallRequest, CallSettings } from '../../src/calls/call.ts';
import { createDeltaRoom } from '../../src/calls/delta-room.ts';
import { createCalls, isProviderFailure } from '../../src/calls/govern.ts';
import { pause } from '../../src/calls/pause.ts';
import { createSpendBreaker } from '../../src/calls/spend-breaker.ts';
import { countInputTokens, estimateInputTokens } from '../../src/llm/count.ts';
import type { LanguageModels } from '../../src/llm/language-model.ts';
import { isPostgresOutage } from '../../src/stores/postgres.ts';
import type { BreakerSettings } from '../../src/task/breaker.ts';
import type { ExceededPolicy, Limit } from '../../src/task/budget.ts';
import { type AbortPolicy, parseTaskInput } from '../../src/task/input.ts';
import type { PriceEntry } from '../../src/task/price.ts';
import type { TestStores } from './stores.ts';

export const MODEL = 'simulated/small';

/** One dollar per million tokens in, two out: 1,000 and 2,000 nano-USD a token. */
export const PRICE: PriceEntry = {
  validFromMs: 0,
  input: 1_000_000_000n,
  cachedInput: 1_000_000_000n,
  cacheWrite5m: 1_000_000_000n,
  cacheWrite1h: 1_000_000_000n,
  output: 2_000_000_000n,
  above: [],
};

const CALL_SETTINGS: CallSettings = {
  firstTokenMs: 5_000,
  chunkGapMs: 5_000,
  attemptMs: 60_000,
  inlineWaitMs: 250,
  leaseMs: 10_000,
  leaseRenewalMs: 100,
  attemptsPerCandidate: 3,
  attemptsPerCall: 6,
  shortHintMs: 5_000,
  estimatePolicy: 'charge_estimate',
  rateControl: true,
  backpressure: { threshold: 0.8, maxDelayMs: 0, table: [] },
  deltaIntervalMs: 5,
  deltaBytes: 2_048,
  deltaFlushMs: 500,
  drainCapMs: 10_000,
  unknownPrice: 'refuse',
  ceiling: { input: 100_000_000_000n, output: 300_000_000_000n },
};

const BREAKER_SETTINGS: BreakerSettings = {
  enabled: true,
  intervalMs: 60_000,
  timeoutMs: 30_000,
  failureThreshold: 5,
  successThreshold: 1,
  maxRequests: 1,
};

export function callDependencies(
  test: TestStores,
  models: LanguageModels,
  settings: Partial<CallSettings> = {},
): CallDependencies {
  const breaker = createBreaker(`llm:${MODEL}`, () => BREAKER_SETTINGS, {
    isFailure: isProviderFailure,
    onChange: () => undefined,
    hangMs: 600_000,
  });
  return {
    ...test.stores,
    deltaRoom: createDeltaRoom(),
    models,
    catalog: {
      priceHash: 'hash',
      modelOf: (id) => (id === MODEL ? { maxOutputTokens: 1_000, prices: [PRICE] } : undefined),
    },
    tokens: {
      upperBound: estimateInputTokens,
      closerBound: countInputTokens,
      count: async (text) => text.split(' ').filter((word) => word !== '').length,
    },
    breakerOf: () => breaker,
    spendBreaker: createSpendBreaker({
      enabled: false,
      intervalMs: 60_000,
      timeoutMs: 10_000,
      failureThreshold: 5,
    }),
    messagesOf: async ({ taskId }) =>
      taskId === undefined ? undefined : (await test.stores.tasks.findMessages(taskId))?.messages,
    isOutage: isPostgresOutage,
    pause,
    settings: { ...CALL_SETTINGS, ...settings },
    meter: {
      attemptEnded: () => undefined,
      answered: () => undefined,
      firstToken: () => undefined,
      settled: () => undefined,
      refused: () => undefined,
      overrun: () => undefined,
      holdRatio: () => undefined,
      pressed: () => undefined,
      slowedDown: () => undefined,
      delayed: () => undefined,
      throttled: () => undefined,
      deltaDropped: () => undefined,
      priceUnknown: () => undefined,
      requested: () => undefined,
      selected: () => undefined,
      fellBack: () => undefined,
    },
    log: test.log,
  };
}

/** A task's row as `begin` writes it, so that its calls have somewhere to put their events. */
export async function beginTask(
  test: TestStores,
  taskId: string,
  limits: readonly Limit[] = [],
  runId = 'run',
): Promise<void> {
  const parsed = parseTaskInput({ tenantId: 'tenant', userId: 'user', query: 'one two three' });
  if (parsed.kind === 'invalid') throw new Error('the input of the test is invalid');
  await test.stores.ledger.gate('tenant');
  await test.stores.tasks.begin(
    { taskId, runId, input: parsed.input, strategy: 'simple', model: MODEL, limits },
    [{ id: `${runId}:begin`, type: 'task_started' }],
  );
}

export type VisitOptions = {
  readonly visit?: number;
  readonly attempt?: number;
  readonly heldWaits?: number;
  readonly heldWaitOver?: boolean;
  readonly onExceeded?: ExceededPolicy;
  readonly backpressureMs?: number;
  readonly sessionId?: string;
  readonly remainingMs?: number;
};

export function requestOf(taskId: string, options: VisitOptions = {}): CallRequest {
  return {
    callKey: `${taskId}:run:answer:1`,
    stepId: 'answer',
    payer: { tenantId: 'tenant', userId: 'user', sessionId: options.sessionId, taskId },
    task: { taskId, runId: 'run', tenantId: 'tenant' },
    model: MODEL,
    number: { candidate: 0, visit: options.visit ?? 1, attempt: options.attempt ?? 1 },
    messages: [{ role: 'user', content: 'one two three' }],
    maxOutputTokens: 100,
    heldWaits: options.heldWaits ?? 0,
    heldWaitOver: options.heldWaitOver ?? false,
    onExceeded: options.onExceeded ?? 'refuse',
    backpressureMs: options.backpressureMs ?? 0,
    remainingMs: options.remainingMs ?? 60_000,
  };
}

export function contextOf(
  controller = new AbortController(),
  by: 'cancelled' | 'handover' = 'cancelled',
  { abort = 'cancel', letGo = new AbortController() }: { abort?: AbortPolicy; letGo?: AbortController } = {},
): CallContext {
  return {
    owner: 'process test',
    seenBefore: 0,
    signal: controller.signal,
    abortReason: () => by,
    abort,
    letGo: letGo.signal,
    beat: () => undefined,
  };
}

export function visitOnce(dependencies: CallDependencies, taskId: string, options: VisitOptions = {}) {
  return createCalls(dependencies).visit(requestOf(taskId, options), contextOf());
}
