// Models that answer what a test wrote down, behind the same seam as the real ones. They honour the whole contract of the seam, abort
// and order of callbacks included, so that what passes with them may pass with a provider.

import { setTimeout as sleep } from 'node:timers/promises';
import { LlmError, type LlmErrorFields } from '../../src/llm/error.ts';
import type { LanguageModels, ModelReply, ModelRequest } from '../../src/llm/language-model.ts';
import type { Usage } from '../../src/task/usage.ts';

/** What one call does. All but the last word is shared: wait, show signs of life, let pieces of text through. */
export type FakeStep = {
  /** Milliseconds before anything is heard. */
  readonly delayMs?: number;
  /** Settles before anything is heard: a test's own gate. */
  readonly until?: Promise<unknown>;
  /** Handed to `onText` one by one, as they come. */
  readonly pieces?: readonly string[] | AsyncIterable<string>;
  /** What the provider counts along the way, so that it covers all pieces at any moment. */
  readonly running?: Usage;
} & (
  | { readonly kind: 'reply'; readonly finishReason?: ModelReply['finishReason']; readonly usage?: Usage }
  | { readonly kind: 'error'; readonly error: LlmErrorFields }
  /** Nothing more comes until the call is aborted. */
  | { readonly kind: 'hang' }
);

export type FakeScript =
  | readonly FakeStep[]
  | ((request: ModelRequest, index: number) => FakeStep | Promise<FakeStep>);

export type FakeModels = LanguageModels & {
  /** In the order in which they came; also those that failed. */
  readonly requests: readonly ModelRequest[];
  /** Calls that are not over. */
  inFlight(): number;
};

/**
 * @param script the steps of the calls, in order, or a function that answers each
 * @param options `models` are those that `has` knows (default: all); others are refused as `not_found`
 */
export function createFakeModels(
  script: FakeScript,
  options: { readonly models?: readonly string[] } = {},
): FakeModels {
  const requests: ModelRequest[] = [];
  let inFlight = 0;
  const has = (model: string) => options.models?.includes(model) ?? true;
  const stepFor = async (request: ModelRequest): Promise<FakeStep> => {
    const index = requests.push(request) - 1;
    const step = typeof script === 'function' ? await script(request, index) : script[index];
    // A test that asks for more than it wrote down: no `LlmError`, or a retry would hide it.
    if (step === undefined) throw new Error(`the script has no step for call ${index + 1}`);
    return step;
  };
  return {
    requests,
    inFlight: () => inFlight,
    has,
    stream: async (request) => {
      if (!has(request.model)) throw failed(request, { kind: 'not_found', stage: 'unsent' });
      if (request.signal.aborted) throw failed(request, { kind: 'aborted', stage: 'unsent' });
      const step = await stepFor(request);
      inFlight++;
      try {
        return await play(request, step);
      } finally {
        inFlight--;
      }
    },
  };
}

async function play(request: ModelRequest, step: FakeStep): Promise<ModelReply> {
  const { signal, onText, onProgress } = request;
  const aborted = watchAbort(signal);
  let text = '';
  const abortedError = () =>
    failed(request, {
      kind: 'aborted',
      stage: text === '' ? 'unanswered' : 'output',
      outputText: text,
      usage: step.running,
      isUsageCurrent: step.running !== undefined,
    });
  try {
    await Promise.race([pause(step, signal), aborted.promise]);
    if (signal.aborted) throw abortedError();
    const hasStatus =
      step.kind !== 'error' || step.error.stage === 'answered' || step.error.stage === 'output';
    if (hasStatus) onProgress?.();
    for await (const piece of untilAborted(step.pieces ?? [], aborted.promise)) {
      onProgress?.();
      text += piece;
      if (piece !== '') onText(piece);
      // Each piece is a turn of its own, as it is from a socket.
      await Promise.resolve();
      if (signal.aborted) throw abortedError();
    }
    if (step.kind === 'hang') await aborted.promise;
    if (signal.aborted) throw abortedError();
  } finally {
    aborted.stop();
  }
  if (step.kind === 'reply') {
    const { finishReason = 'stop', usage } = step;
    return { text, outputText: text, finishReason, usage };
  }
  throw step.kind === 'error' ? failed(request, { outputText: text, ...step.error }) : abortedError();
}

/** A source that waits for its test ends when the call is aborted. */
async function* untilAborted(
  pieces: readonly string[] | AsyncIterable<string>,
  aborted: Promise<void>,
): AsyncGenerator<string> {
  if (!(Symbol.asyncIterator in pieces)) return yield* pieces;
  const source = pieces[Symbol.asyncIterator]();
  for (;;) {
    const next = await Promise.race([source.next(), aborted]);
    if (next === undefined || next.done === true) return;
    yield next.value;
  }
}

/** Ends early, and without an error, when the call is aborted. */
async function pause({ delayMs, until }: FakeStep, signal: AbortSignal): Promise<void> {
  if (delayMs !== undefined) await sleep(delayMs, undefined, { signal }).catch(() => undefined);
  await until;
}

function watchAbort(signal: AbortSignal): { readonly promise: Promise<void>; readonly stop: () => void } {
  const { promise, resolve } = Promise.withResolvers<void>();
  const onAbort = () => resolve();
  if (signal.aborted) resolve();
  signal.addEventListener('abort', onAbort, { once: true });
  return { promise, stop: () => signal.removeEventListener('abort', onAbort) };
}

function failed({ model, attemptKey }: ModelRequest, fields: LlmErrorFields): LlmError {
  return new LlmError(`${model}: a fake failure, ${fields.kind} (attempt ${attemptKey})`, fields);
}
