// Sends one admitted attempt and watches over it: lease, and the time limits that end a hung socket. It answers what
// happened; what that costs is settled elsewhere.

import { LlmError } from '../llm/error.ts';
import type { ModelReply, ModelRequest } from '../llm/language-model.ts';
import type { Attempt } from '../stores/ledger.ts';
import { NO_USAGE, type Usage } from '../task/usage.ts';
import type { CallContext, CallDependencies, CallRequest } from './call.ts';
import { type Cancellation, followCancellation } from './cancellation.ts';
import { createDeltaBatcher } from './deltas.ts';
import { listenToRates } from './learn.ts';
import { keepLease } from './lease.ts';

export type Sent =
  | { readonly kind: 'answered'; readonly reply: ModelReply }
  | { readonly kind: 'failed'; readonly error: LlmError }
  /** We ended it; `text` is what came until then, `seen` what the model had generated and was measured when nothing more was read. */
  | {
      readonly kind: 'aborted';
      readonly by: 'cancelled' | 'handover' | 'fenced';
      /** False when no byte can have reached the provider. */
      readonly isSent: boolean;
      readonly text: string;
      readonly seen: Seen;
    };

/** What is known of an attempt that did not end by itself. */
export type Seen = {
  readonly outputText: string;
  readonly usage: Usage | undefined;
  /** False where `usage` may be the count of an earlier moment than that of `outputText`. */
  readonly isUsageCurrent: boolean;
};

/** Output so far is told by length until the stream ends; a token is about this many characters. */
const CHARACTERS_PER_TOKEN = 4;

export type Watch = {
  readonly outcome: Sent;
  /** Ends the lease; call it once the attempt is settled. */
  stop(): void;
};

/**
 * Never rejects for what a provider does. The watch goes on until it is stopped, so that settling is covered by it.
 * @param begun settles when readers were told of the attempt
 */
export async function send(
  dependencies: CallDependencies,
  request: CallRequest,
  context: CallContext,
  {
    attempt,
    begun,
    sendBy,
  }: { readonly attempt: Attempt; readonly begun: Promise<void>; readonly sendBy: number },
): Promise<Watch> {
  let text = '';
  let heard: string | undefined;
  const outputTokens = () => Math.ceil(text.length / CHARACTERS_PER_TOKEN);
  const lease = keepLease(dependencies, attempt, outputTokens);
  const { stop } = lease;
  const limits = startLimits(dependencies.settings);
  const deltas = createDeltaBatcher(dependencies, attempt, { task: request.task, begun });
  const cancellation = followCancellation(context, dependencies.settings.drainCapMs, () => {
    heard = text;
  });
  const startedAt = performance.now();
  const rates = listenToRates(dependencies, attempt);
  const conclude = async (outcome: Sent): Promise<Watch> => {
    cancellation.stop();
    await Promise.all([deltas.flush(), rates.done()]);
    return { outcome, stop };
  };
  try {
    // Whatever the policy: what was not sent when the call was cancelled is not sent.
    if (context.signal.aborted) return await conclude(unsent(context.abortReason()));
    // A process that stood still since its mark was given up by others, who may have sent the call themselves.
    if (performance.now() >= sendBy) return await conclude(unsent('fenced'));
    const reply = await dependencies.models.stream({
      ...contentOf(request, attempt),
      signal: AbortSignal.any([cancellation.socket, lease.lost, limits.signal]),
      onProgress: limits.progress,
      onRates: rates.heard,
      onText: (piece) => {
        if (text === '') noteFirstToken(dependencies, attempt, startedAt);
        text += piece;
        if (heard === undefined) deltas.push(piece);
        context.beat(outputTokens());
      },
    });
    const isDrained = cancellation.endedBy() === 'cancelled' && context.abort === 'drain';
    return await conclude(isDrained ? toDrained(reply, heard ?? text) : { kind: 'answered', reply });
  } catch (error) {
    // What happened is decided first: time goes on while others are told.
    const outcome = toSent(error, { cancellation, lease, limits, text, heard });
    await rates.failed(error);
    return await conclude(outcome);
  } finally {
    limits.stop();
  }
}

function contentOf(
  { model, messages, temperature, reasoningEffort, responseFormat }: CallRequest,
  { attemptKey, estimate }: Attempt,
): Omit<ModelRequest, 'signal' | 'onText'> {
  return {
    model,
    messages,
    // What was held for, which may be less than what was asked for.
    maxOutputTokens: estimate.maxOutputTokens,
    ...(temperature === undefined ? {} : { temperature }),
    ...(reasoningEffort === undefined ? {} : { reasoningEffort }),
    ...(responseFormat === undefined ? {} : { responseFormat }),
    attemptKey,
  };
}

function unsent(by: 'cancelled' | 'handover' | 'fenced'): Sent {
  const seen = { outputText: '', usage: undefined, isUsageCurrent: false };
  return { kind: 'aborted', by, isSent: false, text: '', seen };
}

/** Only its usage was waited for. With any other policy an answer that came whole although its call was cancelled is given. */
function toDrained(reply: ModelReply, heard: string): Sent {
  const seen = { outputText: reply.outputText, usage: reply.usage, isUsageCurrent: true };
  return { kind: 'aborted', by: 'cancelled', isSent: true, text: heard, seen };
}

type Limits = ReturnType<typeof startLimits>;

function toSent(
  error: unknown,
  at: {
    cancellation: Cancellation;
    lease: { lost: AbortSignal };
    limits: Limits;
    text: string;
    heard: string | undefined;
  },
): Sent {
  const seen = toSeen(error, at.text);
  const isSent = !(error instanceof LlmError && error.stage === 'unsent');
  const text = at.heard ?? at.text;
  if (at.lease.lost.aborted) return { kind: 'aborted', by: 'fenced', isSent, text, seen };
  const by = at.cancellation.endedBy();
  if (by !== undefined) return { kind: 'aborted', by, isSent, text, seen };
  const stage = seen.outputText === '' ? 'unanswered' : 'output';
  if (at.limits.signal.aborted) {
    const message = `the ${at.limits.reached()} limit ended the attempt`;
    return {
      kind: 'failed',
      error: new LlmError(message, { ...seen, kind: 'timeout', stage, cause: error }),
    };
  }
  if (error instanceof LlmError) return { kind: 'failed', error };
  const message = 'the model call failed in an unknown way';
  return { kind: 'failed', error: new LlmError(message, { ...seen, kind: 'unknown', stage, cause: error }) };
}

function toSeen(error: unknown, text: string): Seen {
  if (!(error instanceof LlmError)) return { outputText: text, usage: undefined, isUsageCurrent: false };
  // The provider failed before it generated anything, and says so itself.
  if (error.stage === 'answered')
    return { outputText: '', usage: error.usage ?? NO_USAGE, isUsageCurrent: true };
  const { usage, isUsageCurrent } = error;
  return { outputText: error.outputText || text, usage, isUsageCurrent };
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
