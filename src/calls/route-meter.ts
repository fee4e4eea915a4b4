// What was asked for against what answered: the drift between tiers and providers, with its reason. Labels are closed words; no model
// and no id goes there.

import type { CallOutcome } from '../task/decision.ts';
import type { Fallback } from '../task/journey.ts';
import { type CallDependencies, type CallRequest, providerOf } from './call.ts';

type Metered = Pick<CallDependencies, 'meter' | 'catalog'>;
type Routed = Pick<CallRequest, 'model' | 'number' | 'tier' | 'fallback' | 'isFirst'>;

/** Of a model that stands in no tier. */
const NO_TIER = 'none';

/** A visit begins. An activity that is tried again is the same visit. */
export function noteVisit({ meter }: Metered, { model, number, fallback, isFirst, ...asked }: Routed): void {
  const tier = asked.tier ?? NO_TIER;
  if (number.attempt > 1) return;
  if (isFirst === true) meter.requested({ tier, provider: providerOf(model) });
  if (fallback?.since === number.visit)
    meter.fellBack({ tier, provider: providerOf(fallback.model), reason: reasonOf(fallback) });
}

/** A visit ended. */
export function noteOutcome({ meter, catalog }: Metered, request: Routed, outcome: CallOutcome): void {
  if (outcome.kind !== 'completed') return;
  const tier = catalog.modelOf(outcome.model)?.tier ?? NO_TIER;
  const { fallback } = request;
  const isLowered = request.tier !== undefined && request.tier !== tier;
  meter.selected({
    tier,
    provider: providerOf(outcome.model),
    reason: fallback === undefined ? (isLowered ? 'other_tier' : 'requested') : reasonOf(fallback),
  });
}

function reasonOf({ cause, reason }: Fallback): string {
  return cause === 'budget' ? 'budget' : reason;
}
