// Admission of one attempt: hold on every binding budget, then a permit of the provider, then the durable intent, then "sent". Each
// step that fails undoes the ones before it, so that a refusal consumes nothing.

import type { AttemptDraft } from '../stores/budget-gate.ts';
import type { GateRefusal, LimitUse } from '../stores/gate.ts';
import type { Attempt } from '../stores/ledger.ts';
import { NOT_SENT } from '../stores/rate-rules.ts';
import type { BindingLimit, Estimate } from '../task/budget.ts';
import type { CallOutcome, Pressure } from '../task/decision.ts';
import { toAttemptKey } from '../task/keys.ts';
import { formatUsd } from '../task/money.ts';
import { type CallContext, type CallDependencies, type CallRequest, caused, providerOf } from './call.ts';
import { priceHashOf } from './estimate.ts';
import { exceededOutcome, toBudgetExceeded } from './exceeded.ts';
import { closerEstimate, fittingEstimate } from './fit.ts';
import { delayFor, type ProjectedUse, pressureOfCall, project } from './ladder.ts';
import { voidUnsent } from './late.ts';
import { permit, toPermit } from './permit.ts';

export type Admission =
  | {
      readonly kind: 'admitted';
      readonly attempt: Attempt;
      readonly pressure: Pressure | undefined;
      /** From here on, by this process's own clock (`performance.now()`), others may have given the attempt up. */
      readonly sendBy: number;
    }
  | { readonly kind: 'outcome'; readonly outcome: CallOutcome }
  /** The gate moved, the hold was taken, or somebody else tries the call: look at the call again. */
  | { readonly kind: 'again' };

/** Takes a call to the point where its request may be sent, or says why it may not. Throws when a store is down. */
export async function admit(
  dependencies: CallDependencies,
  request: CallRequest,
  context: CallContext,
  { estimate, tries }: { readonly estimate: Estimate; readonly tries: number },
): Promise<Admission> {
  const early = await earlyRefusal(dependencies, request, estimate);
  if (early !== undefined) return { kind: 'outcome', outcome: early };
  const changesBefore = dependencies.spendBreaker.changes();
  const limits = await dependencies.limits.binding(request.payer);
  const held = await hold(
    dependencies,
    request,
    limits,
    toDraft(dependencies, request, context, { estimate, tries }),
  );
  if (held.kind === 'done') return { kind: 'again' };
  if (held.kind !== 'ok') {
    const outcome = await exceededOutcome(dependencies, request, held, {
      estimate: held.estimate,
      changesBefore,
    });
    return { kind: 'outcome', outcome };
  }
  const { attempt } = held;
  const projected = project(held.uses, attempt.estimate);
  try {
    const slowed = await slowDown(dependencies, request, context, projected);
    const delay = typeof slowed === 'number' ? await permit(dependencies, request, context, attempt) : slowed;
    if (delay !== undefined) {
      await dependencies.gate.undo(attempt);
      return { kind: 'outcome', outcome: typeof slowed === 'number' ? noteSlowed(delay, slowed) : delay };
    }
    const sendBy = await makeDurable(dependencies, request, attempt);
    if (sendBy !== undefined)
      return { kind: 'admitted', attempt, pressure: pressureOfCall(projected), sendBy };
  } catch (error) {
    await undo(dependencies, attempt);
    throw error;
  }
  await undo(dependencies, attempt);
  return { kind: 'again' };
}

/**
 * What the breaker on spend remembers. A task that may ask for more is never refused early: it may have been granted what others have
 * not.
 */
async function earlyRefusal(
  dependencies: CallDependencies,
  request: CallRequest,
  estimate: Estimate,
): Promise<CallOutcome | undefined> {
  const { spendBreaker } = dependencies;
  if (request.onExceeded !== 'refuse' || spendBreaker.refusalOf(request.payer, estimate) === undefined)
    return undefined;
  const closer = await closerEstimate(dependencies, request, estimate);
  const refusal = spendBreaker.refusalOf(request.payer, closer);
  if (refusal === undefined) return undefined;
  dependencies.meter.refused({ scope: refusal.limit.scope.kind, reason: 'breaker' });
  return { kind: 'refuse', failure: toBudgetExceeded(refusal, closer) };
}

type Held =
  | { readonly kind: 'ok'; readonly attempt: Attempt; readonly uses: readonly LimitUse[] }
  | { readonly kind: 'done' }
  | (GateRefusal & { readonly estimate: Estimate });

/**
 * The hold, with the closer of the two estimates where the first does not fit, and with less output where that is what the task wants.
 * Each round shrinks the estimate, so that it ends.
 */
async function hold(
  dependencies: CallDependencies,
  request: CallRequest,
  limits: readonly BindingLimit[],
  draft: AttemptDraft,
): Promise<Held> {
  let { estimate } = draft;
  for (;;) {
    const answer = await dependencies.gate.hold({ ...draft, estimate }, limits, request.task);
    if (answer.kind === 'ok' || answer.kind === 'done') return answer;
    const smaller = await fittingEstimate(dependencies, request, { refusal: answer, estimate });
    if (smaller === undefined) return { ...answer, estimate };
    estimate = smaller;
  }
}

function toDraft(
  dependencies: CallDependencies,
  request: CallRequest,
  context: CallContext,
  { estimate, tries }: { readonly estimate: Estimate; readonly tries: number },
): AttemptDraft {
  const { callKey, payer, stepId, model, number } = request;
  return {
    attemptKey: toAttemptKey(callKey, { ...number, try: tries }),
    callKey,
    payer,
    stepId,
    provider: providerOf(model),
    model,
    candidate: number.candidate,
    owner: context.owner,
    estimate,
    priceHash: priceHashOf(dependencies, model, Date.now()),
  };
}

/** The next visit is not slowed down again for what was spent in this one. */
function noteSlowed(outcome: CallOutcome, slowedMs: number): CallOutcome {
  return outcome.kind === 'wait' && slowedMs > 0 ? { ...outcome, slowedMs } : outcome;
}

/**
 * Warns once, then slows down: short delays are spent here, and their milliseconds are the answer; longer ones are for a durable timer.
 * Served once per call.
 */
async function slowDown(
  dependencies: CallDependencies,
  request: CallRequest,
  context: CallContext,
  projected: readonly ProjectedUse[],
): Promise<CallOutcome | number> {
  const [tightest] = projected;
  if (tightest === undefined) return 0;
  await warn(dependencies, request, projected);
  dependencies.meter.pressed(tightest.limit.scope.kind, tightest.ratio);
  const ms = request.backpressureMs > 0 ? 0 : delayFor(tightest.ratio, dependencies.settings.backpressure);
  if (ms === 0) return 0;
  const { kind, id } = tightest.limit.scope;
  dependencies.meter.slowedDown(kind, ms / 1000);
  if (ms > dependencies.settings.inlineWaitMs)
    return { kind: 'wait', reason: 'backpressure', ms, limit: `back-pressure of ${kind} ${id}` };
  await dependencies.pause(ms, context.signal);
  return ms;
}

/** A warning is worth no failed call: what could not be told now is told by the next call. */
async function warn(
  dependencies: CallDependencies,
  { payer, task }: CallRequest,
  projected: readonly ProjectedUse[],
): Promise<void> {
  for (const use of projected.filter(({ ratio, limit }) => ratio >= limit.warnAt))
    await dependencies.thresholds.cross(payer.tenantId, use, task).catch((error: unknown) => {
      dependencies.log.warn('a budget warning was not told', { tenant: payer.tenantId, error });
    });
}

/** Intent and mark: until when the request may go out. From the intent on a crash is found in Postgres. */
async function makeDurable(
  dependencies: CallDependencies,
  request: CallRequest,
  attempt: Attempt,
): Promise<number | undefined> {
  const started = caused(request, {
    id: `${attempt.attemptKey}:started`,
    type: 'call_started',
    stepId: attempt.stepId,
    callKey: attempt.callKey,
    attempt: attempt.attemptKey,
    data: { model: attempt.model, estimateUsd: formatUsd(attempt.estimate.nanoUsd) },
  });
  if (!(await dependencies.ledger.intent(attempt, started))) return undefined;
  try {
    // The lease begins somewhere between the question and its answer.
    const askedAt = performance.now();
    if (await dependencies.gate.markSent(attempt)) return askedAt + dependencies.settings.leaseMs;
  } catch (error) {
    // The mark may be there although its answer was lost. Only this process could have sent the attempt, and it will not.
    await voidUnsent(dependencies, attempt);
    throw error;
  }
  await voidUnsent(dependencies, attempt);
  return undefined;
}

/** Best effort: what a store does not take back now, its lease or the reaper does. */
async function undo(dependencies: CallDependencies, attempt: Attempt): Promise<void> {
  const left = (error: unknown) =>
    dependencies.log.warn('a hold or permit is left to its lease', { attempt: attempt.attemptKey, error });
  await dependencies.gate.undo(attempt).catch(left);
  await dependencies.rates.giveBack(toPermit(attempt), NOT_SENT).catch(left);
}
