// Admission of one attempt: hold on every binding budget, then a permit of the provider, then the durable intent, then "sent". Each
// step that fails undoes the ones before it, so that a refusal consumes nothing.

import type { GateHold } from '../stores/gate.ts';
import type { Attempt, Charge } from '../stores/ledger.ts';
import type { BindingLimit, Estimate } from '../task/budget.ts';
import type { CallOutcome } from '../task/decision.ts';
import type { BudgetExceededDetails } from '../task/failure.ts';
import { toAttemptKey } from '../task/keys.ts';
import { formatUsd } from '../task/money.ts';
import { NO_USAGE } from '../task/usage.ts';
import {
  type CallContext,
  type CallDependencies,
  type CallRequest,
  caused,
  isEnforced,
  providerOf,
} from './call.ts';
import { pause } from './pause.ts';

export type Admission =
  | { readonly kind: 'admitted'; readonly attempt: Attempt }
  | { readonly kind: 'outcome'; readonly outcome: CallOutcome }
  /** The gate moved, the hold was taken, or somebody else tries the call: look at the call again. */
  | { readonly kind: 'again' };

export const NOTHING_CHARGED: Charge = { usage: NO_USAGE, nanoUsd: 0n, source: 'none' };

const FIRST_HELD_WAIT_MS = 1_000;
const LONGEST_HELD_WAIT_MS = 8_000;

/** Takes a call to the point where its request may be sent, or says why it may not. Throws when a store is down. */
export async function admit(
  dependencies: CallDependencies,
  request: CallRequest,
  context: CallContext,
  { estimate, tries }: { readonly estimate: Estimate; readonly tries: number },
): Promise<Admission> {
  const limits = (await dependencies.limits.binding(request.payer)).filter(isEnforced);
  const attemptKey = toAttemptKey(request.callKey, { ...request.number, try: tries });
  const { generation } = await dependencies.ledger.gate(request.payer.tenantId);
  const held = await hold(dependencies, request, context, { attemptKey, estimate, limits, generation });
  if (held.kind === 'refused' || held.kind === 'crowded')
    return { kind: 'outcome', outcome: await budgetOutcome(dependencies, request, estimate, held) };
  if (held.kind !== 'ok') return { kind: 'again' };
  const { heldAtMs } = held;
  const attempt = toAttempt(dependencies, request, context, { attemptKey, estimate, generation, heldAtMs });
  try {
    const delay = await permit(dependencies, context, attempt);
    if (delay !== undefined) {
      await dependencies.gate.undo(attempt);
      return { kind: 'outcome', outcome: delay };
    }
    if (await makeDurable(dependencies, request, attempt)) return { kind: 'admitted', attempt };
  } catch (error) {
    await undo(dependencies, attempt);
    throw error;
  }
  await undo(dependencies, attempt);
  return { kind: 'again' };
}

type HoldArguments = {
  readonly attemptKey: string;
  readonly estimate: Estimate;
  readonly limits: readonly BindingLimit[];
  readonly generation: bigint;
};

async function hold(
  dependencies: CallDependencies,
  request: CallRequest,
  context: CallContext,
  how: HoldArguments,
): Promise<Exclude<GateHold, { kind: 'missing' }>> {
  const { payer, callKey } = request;
  for (;;) {
    const answer = await dependencies.gate.hold({ ...how, payer, callKey, owner: context.owner });
    if (answer.kind !== 'missing') return answer;
    for (const scope of answer.scopes)
      await dependencies.hydrate({ tenantId: payer.tenantId, scope, generation: how.generation });
  }
}

function toAttempt(
  dependencies: CallDependencies,
  request: CallRequest,
  context: CallContext,
  held: { attemptKey: string; estimate: Estimate; generation: bigint; heldAtMs: number },
): Attempt {
  return {
    attemptKey: held.attemptKey,
    callKey: request.callKey,
    heldAt: new Date(held.heldAtMs),
    payer: request.payer,
    stepId: request.stepId,
    provider: providerOf(request.model),
    model: request.model,
    candidate: request.number.candidate,
    generation: held.generation,
    owner: context.owner,
    estimate: held.estimate,
    priceHash: dependencies.catalog.priceHash,
  };
}

/** Undefined when the permit is there; short waits are spent here, with the hold in hand. */
async function permit(
  dependencies: CallDependencies,
  context: CallContext,
  attempt: Attempt,
): Promise<CallOutcome | undefined> {
  if (!dependencies.settings.rateControl) return undefined;
  let inlineMs = dependencies.settings.inlineWaitMs;
  for (;;) {
    const answer = await dependencies.rates.admit(
      attempt.provider,
      attempt.attemptKey,
      rateTokens(attempt.estimate),
    );
    if (answer.kind === 'admitted') return undefined;
    const { ms, dimension } = answer;
    dependencies.meter.delayed({ provider: attempt.provider, dimension, seconds: ms / 1000 });
    if (ms > inlineMs) return { kind: 'wait', reason: 'rate', ms, limit: `${attempt.provider} ${dimension}` };
    inlineMs -= ms;
    await pause(ms, context.signal);
  }
}

/** Intent and mark. From the intent on a crash is found in Postgres. */
async function makeDurable(
  dependencies: CallDependencies,
  request: CallRequest,
  attempt: Attempt,
): Promise<boolean> {
  const started = caused(request, {
    id: `${attempt.attemptKey}:started`,
    type: 'call_started',
    stepId: attempt.stepId,
    callKey: attempt.callKey,
    attempt: attempt.attemptKey,
    data: { model: attempt.model, estimateUsd: formatUsd(attempt.estimate.nanoUsd) },
  });
  if (!(await dependencies.ledger.intent(attempt, started))) return false;
  try {
    if (await dependencies.gate.markSent(attempt, attempt.generation)) return true;
  } catch (error) {
    // The mark may be there although its answer was lost. Only this process could have sent the attempt, and it will not.
    await voidUnsent(dependencies, attempt);
    throw error;
  }
  await voidUnsent(dependencies, attempt);
  return false;
}

async function voidUnsent(dependencies: CallDependencies, attempt: Attempt): Promise<void> {
  await dependencies.ledger.resolve(attempt, { to: 'voided', outcome: 'lost', charge: NOTHING_CHARGED });
}

/** Best effort: what a store does not take back now, its lease or the reaper does. */
async function undo(dependencies: CallDependencies, attempt: Attempt): Promise<void> {
  const left = (error: unknown) =>
    dependencies.log.warn('a hold or permit is left to its lease', { attempt: attempt.attemptKey, error });
  await dependencies.gate.undo(attempt).catch(left);
  await dependencies.rates
    .giveBack(attempt.provider, attempt.attemptKey, { tokens: 0, sent: false })
    .catch(left);
}

async function budgetOutcome(
  dependencies: CallDependencies,
  request: CallRequest,
  estimate: Estimate,
  held: Extract<GateHold, { kind: 'refused' | 'crowded' }>,
): Promise<CallOutcome> {
  const failure = toBudgetExceeded(held.limit, held.settled, held.held, estimate);
  const limit = `budget of ${failure.scope} ${failure.id}`;
  if (held.kind === 'crowded') {
    const ms = Math.min(FIRST_HELD_WAIT_MS * 2 ** request.heldWaits, LONGEST_HELD_WAIT_MS);
    return { kind: 'held', ms: Math.ceil(ms * (0.75 + Math.random() / 2)), limit, failure };
  }
  dependencies.meter.refused({ scope: failure.scope, reason: failure.unit });
  await dependencies.limits.noteRefusal(request.payer.tenantId, failure);
  return { kind: 'refuse', failure };
}

/** A refusal as every door shows it; amounts in the limit's own unit. */
export function toBudgetExceeded(
  limit: BindingLimit,
  settled: bigint,
  held: bigint,
  estimate: Pick<Estimate, 'nanoUsd' | 'tokens'>,
): BudgetExceededDetails {
  const show = (amount: bigint) => (limit.unit === 'usd' ? formatUsd(amount) : amount.toString());
  return {
    type: 'BudgetExceeded',
    scope: limit.scope.kind,
    id: limit.scope.id,
    unit: limit.unit,
    window: limit.window,
    limit: show(limit.amount),
    settled: show(settled),
    held: show(held),
    needed: show(limit.unit === 'usd' ? estimate.nanoUsd : BigInt(estimate.tokens)),
  };
}

/** Tokens a request is expected to take of a provider's minute; corrected both ways when it ends. */
function rateTokens(estimate: Estimate): number {
  return (
    Math.ceil(estimate.inputTokens / BYTES_PER_TOKEN) +
    Math.min(estimate.maxOutputTokens, FIRST_EXPECTED_OUTPUT)
  );
}

/** The estimate bounds input tokens by bytes; a token is about this many of them. */
const BYTES_PER_TOKEN = 3;
/** Before a model's usual output is known. */
const FIRST_EXPECTED_OUTPUT = 1_024;
