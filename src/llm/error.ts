// The one error that `llm/` throws. It says what went wrong in words of the product and how far the request came, since that
// decides what the attempt is charged. Nothing of a prompt or an answer may stand in its message, causes or enumerable fields.

import type { Usage } from '../task/usage.ts';
import type { ProviderFaultKind } from '../task/verdict.ts';

export type LlmErrorKind = ProviderFaultKind;

/**
 * How far an attempt came before it failed:
 * `unsent` no byte can have reached the provider (nothing to charge);
 * `unanswered` the request may have been written, and the provider's own word on it was not seen: no status, or a 2xx status line
 * whose stream broke before any output (lost, so an estimate is charged);
 * `answered` the provider said itself that it failed before any output: an error status, an error inside a 2xx stream, a refusal
 * (charged with `usage` when there is one, else with nothing);
 * `output` text, reasoning or a tool call had begun to arrive (charged at what was measured).
 */
export type LlmErrorStage = 'unsent' | 'unanswered' | 'answered' | 'output';

export type LlmErrorFields = {
  readonly kind: LlmErrorKind;
  readonly stage: LlmErrorStage;
  readonly status?: number | undefined;
  readonly retryAfterMs?: number | undefined;
  /** The provider has another key, which may be taken at once. */
  readonly hasOtherKey?: boolean;
  /**
   * What the provider had measured when the attempt failed, where it said so. Input counts are final; at stage `output` the count
   * of output may be that of an earlier moment unless `isUsageCurrent`, so the larger of it and a recount of `outputText` is right.
   */
  readonly usage?: Usage | undefined;
  /** Whether `usage` counts all of `outputText`: the provider counts along the way, and nothing came after its last count. */
  readonly isUsageCurrent?: boolean;
  /** All that the model was seen to generate, reasoning and tool calls included: what has to be counted where `usage` lags. */
  readonly outputText?: string | undefined;
  readonly cause?: unknown;
};

export class LlmError extends Error {
  readonly kind: LlmErrorKind;
  readonly stage: LlmErrorStage;
  readonly status: number | undefined;
  readonly retryAfterMs: number | undefined;
  readonly hasOtherKey: boolean;
  readonly usage: Usage | undefined;
  readonly isUsageCurrent: boolean;
  // Private, so that no logger that unfolds errors prints an answer.
  readonly #outputText: string;

  constructor(message: string, fields: LlmErrorFields) {
    super(message, { cause: fields.cause });
    this.name = 'LlmError';
    this.kind = fields.kind;
    this.stage = fields.stage;
    this.status = fields.status;
    this.retryAfterMs = fields.retryAfterMs;
    this.hasOtherKey = fields.hasOtherKey === true;
    this.usage = fields.usage;
    this.isUsageCurrent = fields.usage !== undefined && fields.isUsageCurrent === true;
    this.#outputText = fields.outputText ?? '';
  }

  /** All that the model was seen to generate before the failure; empty at every stage but `output`. */
  get outputText(): string {
    return this.#outputText;
  }
}
