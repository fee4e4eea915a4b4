// A smaller estimate for a call that a budget has no room for: counted instead of bounded by bytes, and then, where the task wants that,
// with less output. Never a smaller hold for the same request.

import type { GateRefusal } from '../stores/gate.ts';
import type { Estimate } from '../task/budget.ts';
import type { CallDependencies, CallRequest } from './call.ts';
import { clampEstimate, estimateExactly } from './estimate.ts';

type Fitting = Pick<CallDependencies, 'catalog' | 'tokens' | 'settings'>;

/** The next estimate to try after a refusal; undefined when there is none. Always smaller than the one that was refused. */
export async function fittingEstimate(
  dependencies: Fitting,
  request: CallRequest,
  { refusal, estimate }: { readonly refusal: GateRefusal; readonly estimate: Estimate },
): Promise<Estimate | undefined> {
  const closer = await closerEstimate(dependencies, request, estimate);
  if (closer.inputTokens < estimate.inputTokens) return closer;
  const isFinal = refusal.kind === 'refused' || request.heldWaitOver;
  if (request.onExceeded !== 'clamp' || !isFinal) return undefined;
  const { limit, settled, held } = refusal;
  const room = limit.amount - settled - (refusal.kind === 'crowded' ? held : 0n);
  const rooms = limit.unit === 'usd' ? { nanoUsd: room } : { tokens: Number(room) };
  const clamped = clampEstimate(dependencies, estimate, request, rooms, Date.now());
  return clamped !== undefined && clamped.maxOutputTokens < estimate.maxOutputTokens ? clamped : undefined;
}

/** The same call with its input counted, at most as large as before; as it was where nothing is known to count by. */
export async function closerEstimate(
  dependencies: Fitting,
  request: CallRequest,
  estimate: Estimate,
): Promise<Estimate> {
  const { maxOutputTokens } = estimate;
  const counted = await estimateExactly(dependencies, { ...request, maxOutputTokens }, Date.now());
  return counted !== undefined && counted.inputTokens < estimate.inputTokens ? counted : estimate;
}
