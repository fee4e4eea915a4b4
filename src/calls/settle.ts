// From what happened to what it costs: one transaction that is the commit point, then the release in Redis, then the events. From the
// commit on everything may be repeated; before it nothing is lost, since the attempt stays `started`.

import type { LlmError } from '../llm/error.ts';
import type { ModelReply } from '../llm/language-model.ts';
import type { DoneMarker } from '../stores/gate.ts';
import type { Attempt, AttemptOutcome, CallResult, Charge, Resolution } from '../stores/ledger.ts';
import { NOT_SENT } from '../stores/rate-rules.ts';
import type { EventDraft } from '../task/event.ts';
import { formatUsd } from '../task/money.ts';
import { cleanText, utf8Bytes } from '../task/text.ts';
import { NO_USAGE, totalTokens, toUsageTotals, type Usage } from '../task/usage.ts';
import { type CallContext, type CallDependencies, type CallRequest, caused } from './call.ts';
import { countMessages, estimateLost, priceUsage } from './estimate.ts';
import { bookLate, NOTHING_CHARGED } from './late.ts';
import { isThrottle } from './learn.ts';
import { toPermit, toRateUse } from './permit.ts';
import type { Seen, Sent } from './send.ts';

export type Settlement = 'settled' | 'fenced';

type End = {
  readonly outcome: AttemptOutcome;
  readonly charge: Charge;
  readonly result?: Pick<CallResult, 'status' | 'text' | 'finishReason'>;
  readonly event?: EventDraft;
};

/** How long a result is kept while Postgres is away, before the next attempt has to book an estimate. */
const SETTLE_FOR_MS = 60_000;
const FIRST_RETRY_MS = 100;
const LONGEST_RETRY_MS = 2_000;

/** Settles one attempt by how it ended. Throws when Postgres stays away. */
export async function settle(
  dependencies: CallDependencies,
  request: CallRequest,
  context: CallContext,
  { attempt, sent }: { readonly attempt: Attempt; readonly sent: Sent },
): Promise<Settlement> {
  // Only before the request was written is there nothing to pay for.
  if (sent.kind === 'failed' && sent.error.stage === 'unsent')
    return resolve(dependencies, context, attempt, {
      to: 'voided',
      outcome: 'failed',
      charge: NOTHING_CHARGED,
    });
  if (sent.kind === 'aborted' && !sent.isSent)
    return resolve(dependencies, context, attempt, {
      to: 'voided',
      outcome: 'lost',
      charge: NOTHING_CHARGED,
    });
  if (sent.kind === 'failed' && sent.error.stage === 'unanswered') {
    const lost = await estimateLost(dependencies, attempt, 0);
    return resolve(dependencies, context, attempt, { to: 'estimated', outcome: 'failed', charge: lost });
  }
  const end = await endOf(dependencies, request, attempt, sent);
  return charge(dependencies, request, context, { attempt, end });
}

async function charge(
  dependencies: CallDependencies,
  request: CallRequest,
  context: CallContext,
  { attempt, end }: { readonly attempt: Attempt; readonly end: End },
): Promise<Settlement> {
  const events = caused(request, ...(end.event === undefined ? [] : [end.event]));
  const settlement = await untilPostgresAnswers(dependencies, context, () =>
    dependencies.ledger.settle(attempt, end, events),
  );
  if (settlement === 'fenced') {
    await bookDifference(dependencies, context, attempt, end.charge);
    return 'fenced';
  }
  dependencies.meter.attemptEnded({ provider: attempt.provider, model: attempt.model, outcome: end.outcome });
  dependencies.meter.settled({ provider: attempt.provider, usd: Number(end.charge.nanoUsd) / 1e9 });
  if (attempt.estimate.nanoUsd > 0n)
    dependencies.meter.holdRatio(
      attempt.provider,
      Number(end.charge.nanoUsd) / Number(attempt.estimate.nanoUsd),
    );
  if (end.charge.nanoUsd > attempt.estimate.nanoUsd) dependencies.meter.overrun(attempt.provider);
  await release(dependencies, attempt, end.charge);
  return 'settled';
}

/** The attempt was never answered: nothing reached the provider, or what it took is estimated. */
async function resolve(
  dependencies: CallDependencies,
  context: CallContext,
  attempt: Attempt,
  resolution: Resolution,
): Promise<Settlement> {
  const isOurs = await untilPostgresAnswers(dependencies, context, () =>
    dependencies.ledger.resolve(attempt, resolution),
  );
  const state = () => dependencies.ledger.state(attempt);
  if (!isOurs && (await untilPostgresAnswers(dependencies, context, state)) !== resolution.to) {
    await bookDifference(dependencies, context, attempt, resolution.charge);
    return 'fenced';
  }
  dependencies.meter.attemptEnded({
    provider: attempt.provider,
    model: attempt.model,
    outcome: resolution.outcome,
  });
  // Not ours: an earlier commit of this very resolution whose answer was lost, or the same end by somebody else.
  const booked = isOurs ? resolution.charge : await dependencies.ledger.charged(attempt);
  await release(dependencies, attempt, booked, resolution.to === 'voided' ? 'void' : 'estimated');
  return 'settled';
}

async function endOf(
  dependencies: CallDependencies,
  request: CallRequest,
  attempt: Attempt,
  sent: Sent,
): Promise<End> {
  switch (sent.kind) {
    case 'answered': {
      const { reply } = sent;
      const charge =
        reply.usage === undefined
          ? await recount(dependencies, request, attempt, { ...reply, isUsageCurrent: false })
          : measured(dependencies, attempt, reply.usage);
      const result = { status: 'completed', text: reply.text, finishReason: reply.finishReason } as const;
      return { outcome: 'ok', charge, result, event: completedEvent(attempt, charge, reply) };
    }
    case 'failed':
      return failedEnd(dependencies, request, attempt, sent.error);
    case 'aborted': {
      const charge = await recount(dependencies, request, attempt, sent.seen);
      if (sent.by !== 'cancelled')
        return { outcome: 'lost', charge, event: resetEvent(attempt, 'the attempt was handed over') };
      const result = { status: 'cancelled', text: sent.text, finishReason: 'cancelled' } as const;
      return { outcome: 'cancelled', charge, result };
    }
    default:
      return sent satisfies never;
  }
}

/** An error status costs what its body says, mostly nothing; a stream that broke costs what had come. */
async function failedEnd(
  dependencies: CallDependencies,
  request: CallRequest,
  attempt: Attempt,
  error: LlmError,
): Promise<End> {
  const outcome = isThrottle(error) ? 'throttled' : 'failed';
  if (error.stage === 'answered') {
    return { outcome, charge: measured(dependencies, attempt, error.usage ?? NO_USAGE) };
  }
  const charge = await recount(dependencies, request, attempt, error);
  return { outcome, charge, event: resetEvent(attempt, 'the stream was cut') };
}

function measured(dependencies: CallDependencies, attempt: Attempt, usage: Usage): Charge {
  return { usage, nanoUsd: priceUsage(dependencies, attempt, usage), source: 'measured' };
}

/**
 * What an attempt took that did not come to its end: the provider's own count where it covers all that was seen, explicit zeros
 * included. Where it may lag behind what had been sent, the text is counted by ourselves, and marked as such.
 */
async function recount(
  dependencies: CallDependencies,
  request: CallRequest,
  attempt: Attempt,
  seen: Seen,
): Promise<Charge> {
  if (seen.usage !== undefined && seen.isUsageCurrent) return measured(dependencies, attempt, seen.usage);
  const counted = Math.min(
    await dependencies.tokens.count(seen.outputText),
    attempt.estimate.maxOutputTokens,
  );
  const input = seen.usage ?? {
    ...NO_USAGE,
    inputTokens: Math.min(await countMessages(dependencies, request.messages), attempt.estimate.inputTokens),
  };
  const usage: Usage = { ...input, outputTokens: Math.max(input.outputTokens, counted) };
  return { usage, nanoUsd: priceUsage(dependencies, attempt, usage), source: 'recounted' };
}

/** The commit may have happened although its answer was lost: the statement is conditional, so that repeating it is safe. */
async function untilPostgresAnswers<Result>(
  dependencies: CallDependencies,
  context: CallContext,
  work: () => Promise<Result>,
): Promise<Result> {
  const giveUpAt = performance.now() + SETTLE_FOR_MS;
  for (let retryMs = FIRST_RETRY_MS; ; retryMs = Math.min(retryMs * 2, LONGEST_RETRY_MS)) {
    try {
      return await work();
    } catch (error) {
      // Let go, the process waits no longer: the attempt stays `started`, and whoever finds it books an estimate. A call that was only
      // handed over waits: it may be one whose estimate is booked already, and nobody else knows what it took.
      if (!dependencies.isOutage(error) || performance.now() > giveUpAt || context.letGo.aborted) throw error;
      dependencies.log.warn('settling waits for postgres', { error, retryMs });
      await dependencies.pause(retryMs);
    }
  }
}

/** Redis is brought up to date at once where it answers; where not, the lease ends and the reaper does it from Postgres. */
async function release(
  dependencies: CallDependencies,
  attempt: Attempt,
  charge: Charge,
  marker: DoneMarker = 'settled',
): Promise<void> {
  const tokens = totalTokens(charge.usage);
  try {
    await dependencies.gate.release(attempt, marker, { nanoUsd: charge.nanoUsd, tokens });
    await dependencies.rates.giveBack(
      toPermit(attempt),
      marker === 'void' ? NOT_SENT : toRateUse(charge.usage),
    );
  } catch (error) {
    dependencies.log.warn('hold left to the reaper', { attempt: attempt.attemptKey, error });
  }
}

/** Somebody booked an estimate while this worker was frozen. */
function bookDifference(
  dependencies: CallDependencies,
  context: CallContext,
  attempt: Attempt,
  charge: Charge,
): Promise<void> {
  return bookLate(dependencies, attempt, charge, (work) => untilPostgresAnswers(dependencies, context, work));
}

function completedEvent(
  attempt: Attempt,
  charge: Charge,
  { text, finishReason }: Pick<ModelReply, 'text' | 'finishReason'>,
): EventDraft {
  return {
    id: `${attempt.attemptKey}:completed`,
    type: 'call_completed',
    stepId: attempt.stepId,
    callKey: attempt.callKey,
    attempt: attempt.attemptKey,
    data: {
      model: attempt.model,
      finishReason,
      usage: toUsageTotals(charge.usage),
      costUsd: formatUsd(charge.nanoUsd),
      // Of the whole answer, however it was streamed: where readers were shown less, or another text, they are given all of it.
      textBytes: utf8Bytes(cleanText(text)),
    },
  };
}

function resetEvent(attempt: Attempt, message: string): EventDraft {
  return {
    id: `${attempt.attemptKey}:reset`,
    type: 'attempt_reset',
    stepId: attempt.stepId,
    callKey: attempt.callKey,
    attempt: attempt.attemptKey,
    message,
  };
}
