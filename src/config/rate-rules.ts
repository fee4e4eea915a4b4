// Which rate limits bind whom, by the configuration of now: asked for each request, so that a file that is read again holds at once.

import type { Config } from '../config.ts';
import type { Tier } from '../task/input.ts';
import { planOfTenant, type RateLimit } from './limits-file.ts';

/** `limitsProviders` is false where provider limits are turned off; tiers and plans bind all the same. */
export function createRateRules(config: Pick<Config, 'limits' | 'models' | 'rate'>) {
  const rows = () => config.limits.rates;
  return {
    provider: (provider: string): RateLimit => rows().providers[provider] ?? rows().providers.default,
    model: (model: string): RateLimit => rows().models[model] ?? NOTHING,
    tier: (tier: Tier): RateLimit => rows().tiers[tier] ?? NOTHING,
    plan: (tenantId: string): RateLimit => planOfTenant(rows(), tenantId),
    tierOf: (model: string): Tier | undefined => config.models[model]?.tier,
    limitsProviders: () => config.rate.enabled,
  };
}

const NOTHING: RateLimit = {};

/** How priorities share what binds them, as configured. */
export function toRateClasses({ rate, call }: Pick<Config, 'rate' | 'call'>) {
  const { criticalMs, highMs, normalMs, lowMs } = rate.horizon;
  return {
    horizonMs: { critical: criticalMs, high: highMs, normal: normalMs, low: lowMs },
    reservedShare: rate.reservedShare,
    agedShare: rate.agedShare,
    rpmBurstMs: rate.rpmBurstMs,
    tpmBurstMs: rate.tpmBurstMs,
    // Short waits are spent inside the activity.
    leastBookedMs: call.inlineWaitMs,
  };
}
