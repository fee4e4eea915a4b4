// A budget has no room for a call: what the call's own policy makes of that, and how it is told at every door.

import type { GateRefusal } from '../stores/gate.ts';
import { type Estimate, toBudgetName } from '../task/budget.ts';
import type { CallOutcome } from '../task/decision.ts';
import type { BudgetExceededDetails } from '../task/failure.ts';
import { formatUsd } from '../task/money.ts';
import type { CallDependencies, CallRequest } from './call.ts';

const FIRST_HELD_WAIT_MS = 1_000;
const LONGEST_HELD_WAIT_MS = 8_000;
/** All who wait for a window to turn would come back in the same millisecond. */
const TURN_JITTER_MS = 1_000;

/** Only other calls' holds in the way: wait for them, for a time. Else, or after that: `onExceeded`. */
export async function exceededOutcome(
  dependencies: CallDependencies,
  request: CallRequest,
  refusal: GateRefusal,
  at: { readonly estimate: Estimate; readonly changesBefore: number },
): Promise<CallOutcome> {
  const { estimate } = at;
  const failure = toBudgetExceeded(refusal, estimate);
  const limit = toBudgetName(failure);
  if (refusal.kind === 'crowded' && !request.heldWaitOver) {
    const ms = Math.min(FIRST_HELD_WAIT_MS * 2 ** request.heldWaits, LONGEST_HELD_WAIT_MS);
    return { kind: 'held', ms: Math.ceil(ms * (0.75 + Math.random() / 2)), limit, failure };
  }
  dependencies.meter.refused({ scope: failure.scope, reason: failure.unit });
  dependencies.spendBreaker.refused(request.payer, refusal, at);
  await dependencies.limits.noteRefusal(request.payer.tenantId, failure);
  switch (request.onExceeded) {
    case 'refuse':
    case 'clamp':
      return { kind: 'refuse', failure };
    case 'wait': {
      const turnsInMs = refusal.interval.endMs - Date.now();
      // A window of all time never turns.
      if (turnsInMs === Number.POSITIVE_INFINITY) return { kind: 'refuse', failure };
      const ms = Math.max(0, turnsInMs) + Math.ceil(Math.random() * TURN_JITTER_MS);
      return { kind: 'budget_wait', ms, limit, failure };
    }
    case 'ask':
      return { kind: 'ask', failure };
    case 'degrade':
      return { kind: 'degrade', failure };
    default:
      return request.onExceeded satisfies never;
  }
}

/** A refusal as every door shows it; amounts in the limit's own unit. */
export function toBudgetExceeded(
  { limit, settled, held, interval }: Omit<GateRefusal, 'kind'>,
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
    ...(limit.window === 'total' ? {} : { resetsAt: new Date(interval.endMs).toISOString() }),
  };
}
