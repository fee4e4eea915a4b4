// What became of attempts whose end nobody saw: voided when they cannot have been sent, estimated when they may have been. Used by the
// next attempt of the same call and by the reaper; both may come at once, and only one of them changes anything.

import type { Attempt } from '../stores/ledger.ts';
import { NOT_SENT } from '../stores/rate-rules.ts';
import type { EventDraft } from '../task/event.ts';
import { totalTokens } from '../task/usage.ts';
import type { CallContext, CallDependencies, CallRequest } from './call.ts';
import { caused } from './call.ts';
import { estimateLost } from './estimate.ts';
import { NOTHING_CHARGED } from './late.ts';
import { toPermit, toRateUse } from './permit.ts';

const POLL_MS = 250;

/**
 * Resolves every earlier attempt of a call that is still open. One that shows life is waited for: its answer may come, and sending
 * again would pay twice.
 */
export async function recover(
  dependencies: CallDependencies,
  request: CallRequest,
  context: CallContext,
): Promise<void> {
  const { task } = request;
  const { seenBefore } = context;
  for (;;) {
    const open = await dependencies.ledger.startedOfCall(request.callKey);
    if (open.length === 0) return;
    let waitMs = 0;
    for (const attempt of open)
      waitMs = Math.max(waitMs, await resolveAttempt(dependencies, attempt, { task, seenBefore }));
    if (waitMs > 0) await dependencies.pause(Math.min(waitMs, POLL_MS), context.signal);
  }
}

/**
 * `seenBefore` are output tokens known from elsewhere than the lease (a heartbeat).
 * One step towards the end of an attempt that is `started` in Postgres.
 * Answers 0 when it is resolved, else how long its lease still runs, in milliseconds.
 */
export async function resolveAttempt(
  dependencies: CallDependencies,
  attempt: Attempt,
  { task, seenBefore }: { readonly task: CallRequest['task']; readonly seenBefore: number },
): Promise<number> {
  const taken = await dependencies.gate.take(attempt);
  switch (taken.kind) {
    case 'live':
      return Math.max(1, (await dependencies.gate.lease(attempt))?.leftMs ?? 1);
    case 'none':
      // Redis lost the record. Its worker may be alive: a lease gives it the time to show that.
      await dependencies.gate.restore(attempt, 'unknown');
      return dependencies.settings.leaseMs;
    case 'taken':
      await voidAttempt(dependencies, attempt);
      return 0;
    case 'done':
      if (taken.marker === 'void') await voidAttempt(dependencies, attempt);
      else await estimate(dependencies, attempt, { task, seen: seenBefore });
      return 0;
    case 'sent':
      await estimate(dependencies, attempt, { task, seen: Math.max(taken.outputTokensSeen, seenBefore) });
      return 0;
    default:
      return taken satisfies never;
  }
}

/** Brings Redis to what Postgres says of an attempt that is over there. */
export async function releaseAsCharged(
  dependencies: Pick<CallDependencies, 'ledger' | 'gate' | 'rates'>,
  attempt: Attempt,
): Promise<void> {
  const charge = await dependencies.ledger.charged(attempt);
  const tokens = totalTokens(charge.usage);
  await dependencies.gate.release(attempt, 'settled', { nanoUsd: charge.nanoUsd, tokens });
  await dependencies.rates.giveBack(toPermit(attempt), toRateUse(charge.usage));
}

async function voidAttempt(dependencies: CallDependencies, attempt: Attempt): Promise<void> {
  await dependencies.ledger.resolve(attempt, { to: 'voided', outcome: 'lost', charge: NOTHING_CHARGED });
  // Also when somebody else voided it: after voiding in Postgres Redis is always released.
  await dependencies.gate.release(attempt, 'void', { nanoUsd: 0n, tokens: 0 });
  await dependencies.rates.giveBack(toPermit(attempt), NOT_SENT);
}

async function estimate(
  dependencies: CallDependencies,
  attempt: Attempt,
  { task, seen }: { readonly task: CallRequest['task']; readonly seen: number },
): Promise<void> {
  const charge = await estimateLost(dependencies, attempt, seen);
  const reset: EventDraft = {
    id: `${attempt.attemptKey}:reset`,
    type: 'attempt_reset',
    stepId: attempt.stepId,
    callKey: attempt.callKey,
    attempt: attempt.attemptKey,
    message: 'the attempt was lost; its text is void',
  };
  const isResolved = await dependencies.ledger.resolve(attempt, {
    to: 'estimated',
    outcome: 'lost',
    charge,
    caused: caused({ task }, reset),
  });
  if (!isResolved) return;
  dependencies.meter.attemptEnded({ provider: attempt.provider, model: attempt.model, outcome: 'lost' });
  dependencies.meter.settled({ provider: attempt.provider, usd: Number(charge.nanoUsd) / 1e9 });
  await releaseAsCharged(dependencies, attempt);
}
