// The one error that `llm/` throws. It says what went wrong in words of the product and how far the request came, since that
// decides what the attempt is charged.

export const LLM_ERROR_KINDS = [
  'rate_limited',
  'overloaded',
  'quota',
  'timeout',
  'connection',
  'cut',
  'bad_request',
  'too_long',
  'not_found',
  'auth',
  'content_filter',
  'aborted',
  'unknown',
] as const;

export type LlmErrorKind = (typeof LLM_ERROR_KINDS)[number];

/**
 * How far an attempt came before it failed:
 * `unsent` no byte can have reached the provider; `unanswered` the request may have been written, no status was seen;
 * `answered` an error status came before any output; `output` text had begun to arrive.
 */
export type LlmErrorStage = 'unsent' | 'unanswered' | 'answered' | 'output';

export type LlmErrorFields = {
  readonly kind: LlmErrorKind;
  readonly stage: LlmErrorStage;
  readonly status?: number;
  readonly retryAfterMs?: number;
  readonly cause?: unknown;
};

export class LlmError extends Error {
  readonly kind: LlmErrorKind;
  readonly stage: LlmErrorStage;
  readonly status: number | undefined;
  readonly retryAfterMs: number | undefined;

  constructor(message: string, fields: LlmErrorFields) {
    super(message, { cause: fields.cause });
    this.name = 'LlmError';
    this.kind = fields.kind;
    this.stage = fields.stage;
    this.status = fields.status;
    this.retryAfterMs = fields.retryAfterMs;
  }
}
