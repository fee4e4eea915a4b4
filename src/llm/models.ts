// One call to a model over the AI SDK: one request, streamed. The only place that talks to providers; it knows nothing of budgets,
// Temporal or stores and never retries, since exactly one layer above does.

import { isStepCount, streamText, type Warning } from 'ai';
import type { RateReading } from '../task/rate-reading.ts';
import { LlmError } from './error.ts';
import { createExchange } from './exchange.ts';
import { toLlmError } from './failure.ts';
import { createKeyRing, type KeyRing } from './key-ring.ts';
import type { LanguageModels, ModelReply, ModelRequest } from './language-model.ts';
import { isStrictSchema, toModelMessages, toOutput } from './prompt.ts';
import { createModel, type ProviderAccess } from './protocol.ts';
import { forAllKeys, readRateHeaders } from './rate-headers.ts';
import { createReader, type Reading, reportsUsageEarly } from './reading.ts';
import { type ReasoningRequest, toReasoning } from './reasoning.ts';

export type LanguageModelsOptions = {
  /** By name, as models.yaml names them. Read at each call: they may change while the process runs. */
  readonly providers: Readonly<Record<string, ProviderAccess>>;
  /** Whether a model can be told how hard to think. Left out: none can. */
  readonly canReason?: (model: string) => boolean;
  /** Whether long prompts are marked for providers that cache only what is marked. Left out: they are. */
  readonly cachePrompts?: boolean;
  /** Told once per model and text what of a request a model does not support and was left out. */
  readonly onWarning?: (warning: { readonly model: string; readonly text: string }) => void;
};

/** The models behind the configured providers. Holds no connection of its own: Node's pool keeps them, and closes idle ones. */
export function createLanguageModels(options: LanguageModelsOptions): LanguageModels {
  const { onWarning } = options;
  // Process-wide, as the AI SDK has it: else it prints warnings by itself. They reach `onWarning` below.
  globalThis.AI_SDK_LOG_WARNINGS = false;
  const warned = new Set<string>();
  const ring = createKeyRing();
  const warn = (model: string, warnings: readonly Warning[]) => {
    for (const text of warnings.map(toText)) {
      if (warned.has(`${model} ${text}`)) continue;
      warned.add(`${model} ${text}`);
      onWarning?.({ model, text });
    }
  };
  const find = (model: string): Target | undefined => {
    const slash = model.indexOf('/');
    const [name, modelId] = [model.slice(0, Math.max(0, slash)), model.slice(slash + 1)];
    const { providers } = options;
    const provider = Object.hasOwn(providers, name) ? providers[name] : undefined;
    return provider?.available && modelId !== ''
      ? {
          name,
          provider,
          modelId,
          canReason: options.canReason?.(model) === true,
          cachePrompts: options.cachePrompts !== false,
          ring,
          warn,
        }
      : undefined;
  };
  return {
    has: (model) => find(model) !== undefined,
    stream: async (request) => {
      const target = find(request.model);
      if (target === undefined)
        throw new LlmError(`${request.model}: no provider is configured for it`, {
          kind: 'not_found',
          stage: 'unsent',
        });
      return send(request, target);
    },
  };
}

type Target = {
  readonly name: string;
  readonly provider: ProviderAccess;
  readonly modelId: string;
  readonly canReason: boolean;
  readonly cachePrompts: boolean;
  readonly ring: KeyRing;
  readonly warn: (model: string, warnings: readonly Warning[]) => void;
};

async function send(request: ModelRequest, target: Target): Promise<ModelReply> {
  const { signal } = request;
  const { ring } = target;
  const use = { provider: target.name, model: target.modelId, keys: target.provider.apiKeys ?? [] };
  const apiKey = ring.take(use);
  const callbacks = guardCallbacks(request);
  const { exchange, fetch } = createExchange(callbacks.onProgress, (headers) =>
    callbacks.onRates(forAllKeys(readRateHeaders(headers, Date.now()), use.keys.length)),
  );
  const reader = createReader(target.provider.protocol, callbacks.onText);
  // A signal of our own ends the request also when this side is the first to stop reading.
  const socket = new AbortController();
  const abort = () => socket.abort(signal.reason);
  signal.addEventListener('abort', abort, { once: true });
  const fail = (error: unknown) => {
    const thrown = callbacks.thrown();
    if (thrown !== undefined) return toCallbackError(request, reader.reading, thrown.error);
    const { model, attemptKey } = request;
    const nowMs = Date.now();
    return toLlmError({
      model,
      attemptKey,
      isAborted: signal.aborted,
      exchange,
      reading: reader.reading,
      error,
      nowMs,
      ...(apiKey === undefined ? {} : { onFault: (fault) => ring.failed(use, apiKey, fault) }),
    });
  };
  try {
    if (signal.aborted) throw fail(signal.reason);
    for await (const part of startStream(
      request,
      { ...target, apiKey },
      { fetch, abortSignal: socket.signal },
    ).stream) {
      if (part.type === 'start-step') target.warn(request.model, part.warnings);
      if (!reader.take(part)) break;
    }
    const reply = toReply(reader.reading);
    if (reply === undefined) throw fail(reader.reading.error);
    if (apiKey !== undefined) ring.worked(use, apiKey);
    return reply;
  } catch (error) {
    throw error instanceof LlmError ? error : fail(error);
  } finally {
    signal.removeEventListener('abort', abort);
    socket.abort();
  }
}

function startStream(
  { messages, temperature, responseFormat, attemptKey, ...request }: ModelRequest,
  target: Target & { readonly apiKey: string | undefined },
  wire: { readonly fetch: typeof globalThis.fetch; readonly abortSignal: AbortSignal },
) {
  const { provider } = target;
  const output = toOutput(responseFormat);
  const { maxOutputTokens, providerOptions } = reasoningOf(request, target);
  return streamText({
    model: createModel(target, wire.fetch),
    messages: toModelMessages(provider.protocol, messages, { responseFormat, isCached: target.cachePrompts }),
    allowSystemInMessages: true,
    maxOutputTokens,
    ...(temperature === undefined ? {} : { temperature }),
    ...(output === undefined ? {} : { output }),
    providerOptions:
      responseFormat?.type === 'json_schema'
        ? {
            ...providerOptions,
            openai: { ...providerOptions['openai'], strictJsonSchema: isStrictSchema(responseFormat.schema) },
          }
        : providerOptions,
    headers: { 'x-weir-attempt': attemptKey },
    abortSignal: wire.abortSignal,
    // One attempt is one request: no retry, and no second step after a tool call.
    maxRetries: 0,
    stopWhen: isStepCount(1),
    include: { rawChunks: reportsUsageEarly(provider.protocol) },
    telemetry: { isEnabled: false },
    // Errors are read from the stream; without a function here the AI SDK prints them, prompts included.
    onError: () => undefined,
  });
}

function reasoningOf(
  { maxOutputTokens, reasoningEffort }: Pick<ModelRequest, 'maxOutputTokens' | 'reasoningEffort'>,
  { name, provider: { protocol }, modelId, canReason }: Target,
): ReasoningRequest {
  return reasoningEffort === undefined || !canReason
    ? { maxOutputTokens, providerOptions: {} }
    : toReasoning(reasoningEffort, { protocol, name, modelId }, maxOutputTokens);
}

/** Undefined when the stream did not end as an answer does. */
function toReply({
  text,
  outputText,
  usage,
  finishReason,
  error,
  hasOutput,
}: Reading): ModelReply | undefined {
  if (error !== undefined) return undefined;
  switch (finishReason) {
    case 'stop':
    case 'length':
    case 'tool-calls':
      return { text, outputText, finishReason, usage };
    case 'content-filter':
      return hasOutput && text !== '' ? { text, outputText, finishReason, usage } : undefined;
    default:
      return undefined;
  }
}

/** A caller's callback that throws ends the call as a fault of its own, never as one of the provider's. */
function guardCallbacks({ onText, onProgress, onRates }: ModelRequest) {
  let thrown: { readonly error: unknown } | undefined;
  const guard = (run: () => void) => {
    try {
      run();
    } catch (error) {
      thrown ??= { error };
      throw error;
    }
  };
  return {
    onText: (text: string) => guard(() => onText(text)),
    onProgress: () => guard(() => onProgress?.()),
    onRates: (readings: readonly RateReading[]) => guard(() => onRates?.(readings)),
    thrown: () => thrown,
  };
}

function toCallbackError({ model, attemptKey }: ModelRequest, reading: Reading, cause: unknown): LlmError {
  return new LlmError(`${model}: a callback of the call threw (attempt ${attemptKey})`, {
    kind: 'unknown',
    stage: reading.hasOutput ? 'output' : 'unanswered',
    usage: reading.usage,
    isUsageCurrent: reading.isUsageCurrent,
    outputText: reading.outputText,
    cause,
  });
}

function toText(warning: Warning): string {
  switch (warning.type) {
    case 'unsupported':
    case 'compatibility':
      return warning.details === undefined ? warning.feature : `${warning.feature}: ${warning.details}`;
    case 'deprecated':
      return `${warning.setting}: ${warning.message}`;
    case 'other':
      return warning.message;
    default:
      return warning satisfies never;
  }
}
