// The seam to the models: one call, streamed. What is behind it (AI SDK providers, or a fake in a test) knows nothing of budgets,
// Temporal or stores, never retries, and throws nothing but `LlmError`.

import type { ReasoningEffort } from '../task/input.ts';
import type { Message, ResponseFormat } from '../task/message.ts';
import type { RateReading } from '../task/rate-reading.ts';
import type { Usage } from '../task/usage.ts';

export type ModelRequest = {
  /** `provider/model` as in models.yaml. */
  readonly model: string;
  readonly messages: readonly Message[];
  readonly maxOutputTokens: number;
  readonly temperature?: number;
  /** Left out by models that do not reason. */
  readonly reasoningEffort?: ReasoningEffort;
  readonly responseFormat?: ResponseFormat;
  /** Travels as header `x-weir-attempt`, so that a provider's log can be matched with the ledger. */
  readonly attemptKey: string;
  /** Reaches the socket. After an abort the call rejects with `LlmError {kind: 'aborted'}`. */
  readonly signal: AbortSignal;
  /** Called for every piece of visible text, in order, before the reply resolves. */
  readonly onText: (text: string) => void;
  /** Called when the response's status line was seen and for every chunk, visible or not: evidence that the stream lives. */
  readonly onProgress?: () => void;
  /** Told what the headers of the answer say of the provider's limits, once, whatever the status. */
  readonly onRates?: (readings: readonly RateReading[]) => void;
};

export type ModelReply = {
  readonly text: string;
  /** All that was generated, reasoning and tool calls included: what has to be counted where there is no usage. */
  readonly outputText: string;
  readonly finishReason: 'stop' | 'length' | 'tool-calls' | 'content-filter';
  /** undefined when the provider sent none: absent is not zero. */
  readonly usage: Usage | undefined;
};

export type LanguageModels = {
  /** Sends one request and resolves when the stream ended well. */
  stream(request: ModelRequest): Promise<ModelReply>;
  /** Whether a model's provider is configured in this process. */
  has(model: string): boolean;
};
