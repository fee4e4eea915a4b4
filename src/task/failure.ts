// The closed list of ways in which a task ends without an answer, and what each tells. Pure vocabulary, shared by the workflow
// (which fails with it), the gateway (which makes problem documents of it) and clients.

export const FAILURE_TYPES = [
  'InvalidTask',
  'BudgetExceeded',
  'RateLimited',
  'RequestRejected',
  'ApprovalRejected',
  'ApprovalTimedOut',
  'NoModelAvailable',
  'DeadlineExceeded',
  'ContentRefused',
] as const;

export type FailureType = (typeof FAILURE_TYPES)[number];

/** One thing wrong with a task's input: where (`budget.usd`), what was expected, what came (cut to 100 characters). */
export type Fault = { readonly path: string; readonly expected: string; readonly got: string };

export type InvalidTaskDetails = { readonly type: 'InvalidTask'; readonly faults: readonly Fault[] };

/** Which limit refused a call. Amounts are decimal strings: USD, or a count of tokens, by `unit`. */
export type BudgetExceededDetails = {
  readonly type: 'BudgetExceeded';
  readonly scope: string;
  readonly id: string;
  readonly unit: 'usd' | 'tokens';
  readonly window: string;
  readonly limit: string;
  readonly settled: string;
  readonly held: string;
  readonly needed: string;
  readonly resetsAt?: string;
};

/** A model that could not answer, and for how long still, where that is known. */
export type ModelSetback = {
  readonly model: string;
  readonly reason: string;
  readonly retryAfterMs?: number;
};

export type ModelFailureDetails = {
  readonly type:
    | 'RateLimited'
    | 'RequestRejected'
    | 'NoModelAvailable'
    | 'DeadlineExceeded'
    | 'ContentRefused';
  readonly reason: string;
  readonly model?: string;
  readonly status?: number;
  readonly retryAfterMs?: number;
  /** Where several models were tried: each with what it had against it. */
  readonly candidates?: readonly ModelSetback[];
};

/** Nobody approved what a task asked for. */
export type ApprovalFailureDetails = {
  readonly type: 'ApprovalRejected' | 'ApprovalTimedOut';
  readonly approvalId: string;
  readonly reason: string;
  readonly by?: string;
  readonly comment?: string;
  /** What the task asked to pass. */
  readonly exceeded?: BudgetExceededDetails;
};

export type FailureDetails =
  | InvalidTaskDetails
  | BudgetExceededDetails
  | ModelFailureDetails
  | ApprovalFailureDetails;

const TRY_AGAIN_MS = 5_000;

/** How a submission is refused whose tenant has as many tasks without an end as it may have. */
export function tooManyTasks(tenantId: string, most: number): ModelFailureDetails {
  return {
    type: 'RateLimited',
    reason: `tenant ${tenantId} has ${most} tasks that have not ended, and may have no more; submit again when some have ended`,
    retryAfterMs: TRY_AGAIN_MS,
  };
}

/** One sentence for a person, made from the details alone. */
export function failureMessage(details: FailureDetails): string {
  switch (details.type) {
    case 'InvalidTask':
      return `invalid task: ${details.faults.map((fault) => `${fault.path}: expected ${fault.expected}, got ${fault.got}`).join('; ')}`;
    case 'BudgetExceeded':
      return (
        `budget exceeded: ${details.scope} ${details.id} has a limit of ${details.limit} ${details.unit} (${details.window}), ` +
        `settled ${details.settled}, held ${details.held}, needed ${details.needed}`
      );
    case 'ApprovalRejected':
      return `not approved: ${details.reason}${details.by === undefined ? '' : `, by ${details.by}`}`;
    case 'ApprovalTimedOut':
      return `nobody decided in time: ${details.reason}`;
    case 'RateLimited':
    case 'RequestRejected':
    case 'NoModelAvailable':
    case 'DeadlineExceeded':
    case 'ContentRefused':
      return `${FAILURE_PHRASES[details.type]}: ${details.reason}${details.model === undefined ? '' : ` (${details.model})`}`;
    default:
      return details satisfies never;
  }
}

const FAILURE_PHRASES = {
  RateLimited: 'rate limited',
  RequestRejected: 'the provider rejected the request',
  NoModelAvailable: 'no model available',
  DeadlineExceeded: 'deadline exceeded',
  ContentRefused: 'content refused',
} as const satisfies Record<ModelFailureDetails['type'], string>;
