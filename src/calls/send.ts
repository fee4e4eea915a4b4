// Sends one admitted attempt and watches over it: lease, and the time limits that end a hung socket. It answers what
// happened; what that costs is settled elsewhere.

import { LlmError } from '../llm/error.ts';
import type { ModelReply } from '../llm/language-model.ts';
import type { Attempt } from '../stores/ledger.ts';
import type { Usage } from '../task/usage.ts';
import type { CallContext, CallDependencies, CallRequest } from './call.ts';
import { createDeltaBatcher } from './deltas.ts';
import { keepLease } from './lease.ts';

export type Sent =
  | { readonly kind: 'answered'; readonly reply: ModelReply }
  | { readonly kind: 'failed'; readonly error: LlmError }
  /** We ended it; `text` is what readers saw, `seen` what the model had generated and was measured by then. */
  | {
      readonly kind: 'aborted';
      readonly by: 'cancelled' | 'handover' | 'fenced';
      /** False when no byte can have reached the provider. */
      readonly isSent: boolean;
      readonly text: string;
      readonly seen: Seen;
    };

/** What is known of an attempt that did not end by itself. */
export type Seen = { readonly outputText: string; readonly usage: Usage | undefined };

/** Output so far is told by length until the stream ends; a token is about this many characters. */
const CHARACTERS_PER_TOKEN = 4;

export type Watch = {
  readonly outcome: Sent;
  /** Ends the lease; call it once the attempt is settled. */
  stop(): void;
};

/** Never rejects for what a provider does. The watch goes on until it is stopped, so that settling is covered by it. */
export async function send(
  dependencies: CallDependencies,
  request: CallRequest,
  context: CallContext,
  { attempt, tries }: { readonly attempt: Attempt; readonly tries: number },
): Promise<Watch> {
  let text = '';
  const outputTokens = () => Math.ceil(text.length / CHARACTERS_PER_TOKEN);
  const lease = keepLease(dependencies, attempt, outputTokens);
  const limits = startLimits(dependencies.settings);
  const deltas = createDeltaBatcher(dependencies, request, attempt, tries);
  const startedAt = performance.now();
  const { stop } = lease;
  try {
    const reply = await dependencies.models.stream({
      model: request.model,
      messages: request.messages,
      maxOutputTokens: request.maxOutputTokens,
      ...(request.temperature === undefined ? {} : { temperature: request.temperature }),
      ...(request.responseFormat === undefined ? {} : { responseFormat: request.responseFormat }),
      attemptKey: attempt.attemptKey,
      signal: AbortSignal.any([context.signal, lease.lost, limits.signal]),
      onProgress: limits.progress,
      onText: (piece) => {
        if (text === '') noteFirstToken(dependencies, attempt, startedAt);
        text += piece;
        deltas.push(piece);
        context.beat(outputTokens());
      },
    });
    await deltas.flush();
    return { outcome: { kind: 'answered', reply }, stop };
  } catch (error) {
    await deltas.flush();
    return { outcome: toSent(error, { context, lease, limits, text }), stop };
  } finally {
    limits.stop();
  }
}

type Limits = ReturnType<typeof startLimits>;

function toSent(
  error: unknown,
  at: { context: CallContext; lease: { lost: AbortSignal }; limits: Limits; text: string },
): Sent {
  const { text } = at;
  const seen: Seen =
    error instanceof LlmError && error.outputText !== ''
      ? { outputText: error.outputText, usage: error.usage }
      : { outputText: text, usage: undefined };
  const stage = seen.outputText === '' ? 'unanswered' : 'output';
  if (at.limits.signal.aborted) {
    const message = `the ${at.limits.reached()} limit ended the attempt`;
    return {
      kind: 'failed',
      error: new LlmError(message, { ...seen, kind: 'timeout', stage, cause: error }),
    };
  }
  const isSent = !(error instanceof LlmError && error.stage === 'unsent');
  if (at.lease.lost.aborted) return { kind: 'aborted', by: 'fenced', isSent, text, seen };
  if (at.context.signal.aborted) return { kind: 'aborted', by: at.context.abortReason(), isSent, text, seen };
  if (error instanceof LlmError) return { kind: 'failed', error };
  const message = 'the model call failed in an unknown way';
  return { kind: 'failed', error: new LlmError(message, { ...seen, kind: 'unknown', stage, cause: error }) };
}

/** First token, gap between chunks, whole attempt: a heartbeat by timer would keep a hung socket alive for ever. */
function startLimits(settings: CallDependencies['settings']) {
  const controller = new AbortController();
  let reached = '';
  const arm = (name: string, ms: number) =>
    setTimeout(() => {
      reached = name;
      controller.abort(new Error(`${name} limit of ${ms} ms reached`));
    }, ms);
  const whole = arm('attempt', settings.attemptMs);
  let current = arm('firstToken', settings.firstTokenMs);
  return {
    signal: controller.signal,
    reached: () => reached,
    progress() {
      clearTimeout(current);
      current = arm('chunkGap', settings.chunkGapMs);
    },
    stop() {
      clearTimeout(whole);
      clearTimeout(current);
    },
  };
}

function noteFirstToken(dependencies: CallDependencies, attempt: Attempt, startedAt: number): void {
  const seconds = (performance.now() - startedAt) / 1000;
  dependencies.meter.firstToken({ provider: attempt.provider, model: attempt.model, seconds });
}
