// Tasks, budgets and usage over the gateway's HTTP API. Requests are sent once, never repeated; only a stream of events comes back by
// itself, since it knows where it was.

import type { ApprovalStatus } from '../task/approval.ts';
import type { ScopeKind } from '../task/budget.ts';
import type { Cursor, EventType, TaskEvent } from '../task/event.ts';
import type { TaskStatus } from '../task/status.ts';
import { followTask } from './follow-task.ts';
import { GatewayError, toGatewayError, unreachable } from './gateway-error.ts';
import type {
  ApprovalList,
  ApprovalView,
  BreakersView,
  BudgetExplanation,
  BudgetPage,
  BudgetView,
  DecisionInput,
  ErasedView,
  LimitInput,
  QueuesView,
  RaisedView,
  RaiseInput,
  RateLimitsView,
  RerateView,
  TaskAccepted,
  TaskExplanation,
  TaskPage,
  TaskView,
  UsageReport,
} from './wire.ts';

export { GatewayError } from './gateway-error.ts';
export type {
  ApprovalView,
  BreakersView,
  BudgetExplanation,
  BudgetPage,
  BudgetView,
  ErasedView,
  ExplainedLimit,
  LimitInput,
  RateLimitsView,
  RerateView,
  TaskExplanation,
  TaskPage,
  TaskView,
  UsageReport,
} from './wire.ts';

export type GatewayClientOptions = {
  /** Base URL, such as http://127.0.0.1:8080. */
  readonly url: string;
  readonly apiKey?: string;
  /** How long an answer may take, streams excepted. Milliseconds. */
  readonly timeoutMs?: number;
};

export type TaskQuery = {
  readonly userId?: string | undefined;
  readonly sessionId?: string | undefined;
  readonly status?: TaskStatus | undefined;
  readonly limit?: number | undefined;
  /** `next` of the page before. */
  readonly cursor?: string | undefined;
};

export type FollowTaskOptions = {
  /** The last event the reader has, as an event, a position or its text such as `1-42`; absent: from the beginning. */
  readonly after?: Cursor | string | undefined;
  /** Only these; `reset` and `stream_end` always come, `call_snapshot` where `call_delta` does. */
  readonly types?: readonly EventType[] | undefined;
  /** Ends the stream without an error. */
  readonly signal?: AbortSignal | undefined;
  /** Told each time the connection was lost and is about to be made again. */
  readonly onOutage?: ((error: GatewayError) => void) | undefined;
};

export type UsageQuery = {
  /** tenant, user, session, task, model, provider, day */
  readonly group?: readonly string[] | undefined;
  readonly tenant?: string | undefined;
  readonly user?: string | undefined;
  readonly session?: string | undefined;
  readonly task?: string | undefined;
  readonly model?: string | undefined;
  readonly provider?: string | undefined;
  /** YYYY-MM-DD, in UTC */
  readonly day?: string | undefined;
  /** ISO 8601, included */
  readonly from?: string | undefined;
  /** ISO 8601, excluded */
  readonly to?: string | undefined;
  /** Most groups to answer. */
  readonly limit?: number | undefined;
};

export type RerateInput = {
  /** ISO 8601, included */
  readonly from: string;
  /** ISO 8601, excluded */
  readonly to: string;
  readonly model?: string | undefined;
  /** Tells what would be booked, and books nothing. */
  readonly dryRun?: boolean | undefined;
  /** `next` of the answer before. */
  readonly after?: string | undefined;
};

export type BudgetQuery = {
  readonly scope?: ScopeKind | undefined;
  /** Left out: `default`. */
  readonly tenantId?: string | undefined;
  readonly limit?: number | undefined;
};

export type ApprovalQuery = {
  /** Left out: those that wait. */
  readonly status?: ApprovalStatus | undefined;
  readonly taskId?: string | undefined;
  readonly tenantId?: string | undefined;
};

export type TenantOption = { readonly tenantId?: string | undefined };

export type GatewayClient = ReturnType<typeof createGatewayClient>;

const TIMEOUT_MS = 30_000;
/** For work on many rows. */
const LONG_TIMEOUT_MS = 600_000;

/** @throws GatewayError when the URL is none; every method throws GatewayError */
export function createGatewayClient(options: GatewayClientOptions) {
  const api = createRequests(options);
  const task = (taskId: string) => `tasks/${encodeURIComponent(taskId)}`;
  const approval = (approvalId: string) => `approvals/${encodeURIComponent(approvalId)}`;
  const budget = (scope: ScopeKind, id: string) => `budgets/${scope}/${encodeURIComponent(id)}`;
  return {
    /** Submits a task; answers as soon as it was accepted. A 400 carries `problem.faults`. */
    submit: (input: unknown, { taskId }: { taskId?: string | undefined } = {}): Promise<TaskAccepted> =>
      api.json('POST', 'tasks', { query: { taskId }, body: input }),

    /** Newest first. */
    list: ({ userId, sessionId, ...query }: TaskQuery = {}): Promise<TaskPage> =>
      api.json('GET', 'tasks', { query: { user: userId, session: sessionId, ...query } }),

    get: (taskId: string): Promise<TaskView> => api.json('GET', task(taskId)),

    /** Asks the task to stop. A task that has ended stays as it is; what it answers then is the gateway's to say. */
    async cancel(taskId: string): Promise<void> {
      await api.send('POST', `${task(taskId)}/cancel`);
    },

    /**
     * Events in order until `stream_end`; none for a reader that has the last one. Comes back by itself when the connection is lost or
     * the gateway restarts, after the last event that it gave out. `call_snapshot` replaces what was streamed of its call; after `reset`
     * everything is told again.
     * @throws GatewayError when the gateway cannot be reached the first time, or refuses (no such task, no key, no such position)
     */
    follow: (taskId: string, follow: FollowTaskOptions = {}): AsyncIterable<TaskEvent> =>
      followTask({ ...api.connection, path: `${task(taskId)}/stream` }, follow),

    /** Every limit that binds the task, what it waits for, and why it was refused last. */
    explain: (taskId: string): Promise<TaskExplanation> => api.json('GET', `${task(taskId)}/explain`),

    budgets: {
      /** Scopes whose limits somebody set, changed last first; those of tasks only where asked for. */
      list: (query: BudgetQuery = {}): Promise<BudgetPage> => api.json('GET', 'budgets', { query }),

      get: (scope: ScopeKind, id: string, query: TenantOption = {}): Promise<BudgetView> =>
        api.json('GET', budget(scope, id), { query }),

      /** Replaces all limits of the scope. */
      set: (
        scope: ScopeKind,
        id: string,
        limits: readonly LimitInput[],
        query: TenantOption = {},
      ): Promise<BudgetView> => api.json('PUT', budget(scope, id), { query, body: { limits } }),

      /** Takes the scope's own limits away; the configured defaults hold again. */
      async remove(scope: ScopeKind, id: string, query: TenantOption = {}): Promise<void> {
        await api.send('DELETE', budget(scope, id), { query });
      },

      /** Which limits bind the scope, what is left of them, and why it was refused last. */
      explain: (scope: ScopeKind, id: string, query: TenantOption = {}): Promise<BudgetExplanation> =>
        api.json('GET', `${budget(scope, id)}/explain`, { query }),
    },

    /** Raises the task's own limits; a call that waits for one of them looks again. A 409 says that it is not running. */
    raiseBudget: (taskId: string, raise: RaiseInput): Promise<RaisedView> =>
      api.json('POST', `${task(taskId)}/budget`, { body: raise }),

    approvals: {
      /** At most 100: those that wait oldest first, all others newest first. */
      list: (query: ApprovalQuery = {}): Promise<ApprovalList> => api.json('GET', 'approvals', { query }),

      get: (approvalId: string): Promise<ApprovalView> => api.json('GET', approval(approvalId)),

      /** Decides once; a 409 says that somebody else, or time, has decided. */
      decide: (approvalId: string, decision: DecisionInput): Promise<ApprovalView> =>
        api.json('POST', approval(approvalId), { body: decision }),
    },

    /** Rate limits of providers and models, and those of a tenant. */
    rateLimits: (tenantId?: string): Promise<RateLimitsView> =>
      api.json('GET', 'limits', { query: { tenantId } }),

    /** Circuit breakers, and how degraded tasks run. */
    breakers: (): Promise<BreakersView> => api.json('GET', 'breakers'),

    /** What waits in each queue: for a slot, and for a quota. 503 while nobody has counted. */
    queues: (): Promise<QueuesView> => api.json('GET', 'queues'),

    /** Sums of the ledger by group. */
    usage: (query: UsageQuery = {}): Promise<UsageReport> =>
      api.json('GET', 'usage', { query: toUsageQuery(query) }),

    /** The same as CSV. `isCut`: there are more groups than were asked for. */
    async usageCsv(query: UsageQuery = {}): Promise<{ readonly csv: string; readonly isCut: boolean }> {
      const { text, headers } = await api.text('GET', 'usage', {
        query: { ...toUsageQuery(query), format: 'csv' },
      });
      return { csv: text, isCut: headers.get('weir-truncated') === 'true' };
    },

    /** Brings the ledger to the present price list, a part of the period at a time: go on with `next` until there is none. */
    rerate: (input: RerateInput): Promise<RerateView> =>
      api.json('POST', 'usage/rerate', { body: input, timeoutMs: LONG_TIMEOUT_MS }),

    /** Erases prompts, answers and texts of events of a tenant or one of its users. Safe to repeat. */
    eraseTexts: (tenantId: string, userId?: string): Promise<ErasedView> =>
      api.json('DELETE', 'texts', { query: { tenantId, userId }, timeoutMs: LONG_TIMEOUT_MS }),
  };
}

function toUsageQuery({ group, ...filter }: UsageQuery): NonNullable<RequestOptions['query']> {
  return { group: group?.join(','), ...filter };
}

type RequestOptions = {
  readonly query?: Readonly<Record<string, string | number | undefined>>;
  readonly body?: unknown;
  /** In place of the client's own, where that is shorter. */
  readonly timeoutMs?: number;
};

function createRequests({ url, apiKey, timeoutMs = TIMEOUT_MS }: GatewayClientOptions) {
  const base = toBase(url);
  const headers: Record<string, string> = apiKey === undefined ? {} : { authorization: `Bearer ${apiKey}` };
  const send = async (method: string, path: string, options: RequestOptions = {}) => {
    const { query = {}, body } = options;
    const target = new URL(path, base);
    for (const [name, value] of Object.entries(query))
      if (value !== undefined) target.searchParams.set(name, String(value));
    const content =
      body === undefined
        ? { headers }
        : { headers: { ...headers, 'content-type': 'application/json' }, body: JSON.stringify(body) };
    const response = await fetch(target, {
      method,
      ...content,
      signal: AbortSignal.timeout(Math.max(timeoutMs, options.timeoutMs ?? 0)),
    }).catch((error: unknown) => {
      throw unreachable(url, error);
    });
    if (!response.ok) throw await toGatewayError(response);
    return response;
  };
  return {
    connection: { url, base, headers },
    /** Reads the body to its end, so that the connection can be used again. */
    async send(method: string, path: string, options?: RequestOptions): Promise<void> {
      await (await send(method, path, options)).arrayBuffer();
    },
    async text(method: string, path: string, options?: RequestOptions) {
      const response = await send(method, path, options);
      return { text: await response.text(), headers: response.headers };
    },
    /** Trusts the gateway's shapes; they are held against wire.ts by its own tests. */
    async json<Answer>(method: string, path: string, options?: RequestOptions): Promise<Answer> {
      const response = await send(method, path, options);
      try {
        return (await response.json()) as Answer;
      } catch (cause) {
        const { status } = response;
        throw new GatewayError(`what answers at ${url} is no Weir gateway: its answer is no JSON`, {
          status,
          cause,
        });
      }
    },
  };
}

function toBase(url: string): URL {
  const base = URL.parse(`${url.replace(/\/+$/, '')}/api/v1/`);
  if (base === null || !/^https?:$/.test(base.protocol))
    throw new GatewayError(`"${url}" is no URL of a gateway: expected one such as http://127.0.0.1:8080`);
  return base;
}
