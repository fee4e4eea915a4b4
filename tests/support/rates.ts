// Rate control as tests ask it: one provider, model and tenant each, so that all of them share a server and no clock.

import { type RateKeys, rateKeys, tenantRateKeys } from '../../src/stores/keys.ts';
import {
  DEFAULT_RATE_CLASSES,
  type RateClasses,
  type RateOutcome,
  type RateRequest,
  type RateRules,
  type RateWait,
} from '../../src/stores/rate-rules.ts';
import { createRates, type RateOptions } from '../../src/stores/rates.ts';
import type { Redis } from '../../src/stores/redis.ts';

export type Stage = ReturnType<typeof stageRates>;

/** Every wait is told, none is booked. */
export const NO_BOOKINGS: RateClasses = {
  ...DEFAULT_RATE_CLASSES,
  horizonMs: { critical: 0, high: 0, normal: 0, low: 0 },
};

let stages = 0;

/** Rates of a provider and a tenant that nobody else uses. */
export function stageRates(
  redis: Redis,
  rules: Partial<RateRules>,
  options: Partial<RateOptions> & { readonly classes?: RateClasses } = {},
) {
  stages += 1;
  const provider = `p${stages}`;
  const who = { provider, model: `${provider}/one`, tenantId: `t${stages}` };
  const rates = createRates(redis, { leaseMs: 60_000, rules, ...options });
  let calls = 0;
  /** A request of a call of its own, unless it is told otherwise. Nothing but its input counts in tokens. */
  const request = (change: Partial<RateRequest> = {}): RateRequest => {
    calls += 1;
    const { callKey = `call-${calls}`, candidate = 0 } = change;
    return {
      ...who,
      callKey,
      candidate,
      attemptKey: `${callKey}#${candidate}.1.1.0`,
      priority: 'normal',
      tokens: { input: 1, output: 0 },
      ...change,
    };
  };
  return {
    ...who,
    rates,
    request,
    admit: (change: Partial<RateRequest> = {}) => rates.admit(request(change)),
    /** Many at once. */
    admitAll: (count: number, change: Partial<RateRequest> = {}) =>
      Promise.all(Array.from({ length: count }, () => rates.admit(request(change)))),
    keys: rateKeys(redis.prefix, provider, who.model),
    tierKeys: tenantRateKeys(redis.prefix, who.tenantId, 'small'),
    /** How far a line lies ahead of now, in milliseconds. */
    async debtMs(dimension: string, bucket: 'outer' | 'inner' = 'outer', keys?: RateKeys): Promise<number> {
      const own = keys ?? rateKeys(redis.prefix, provider, who.model);
      const tat = await redis.command((client) => client.hget(own[bucket], dimension));
      // Whole milliseconds on both sides, as the clock is read.
      return tat === null ? 0 : Math.floor(Number(tat) / 1000) - (await redis.nowMs());
    },
  };
}

export function waitOf(outcome: RateOutcome): RateWait {
  if (outcome.kind !== 'wait') throw new Error('the request was admitted');
  return outcome;
}

export function admitted(outcomes: readonly RateOutcome[]): number {
  return outcomes.filter((outcome) => outcome.kind === 'admitted').length;
}

/** Makes it later for a slot, by making all that it remembers older. */
export async function letPass(redis: Redis, keys: RateKeys, ms: number): Promise<void> {
  const older: Record<string, (value: string) => string> = {
    ...Object.fromEntries(
      ['rpm', 'tpm', 'inputTpm', 'outputTpm', 'aged'].map((name) => [name, less(ms * 1_000)]),
    ),
    ...Object.fromEntries(['blocked', 'swept', 'higher'].map((name) => [name, less(ms)])),
  };
  await redis.command(async (client) => {
    const pipeline = client.pipeline();
    for (const bucket of [keys.outer, keys.inner])
      for (const [field, value] of Object.entries(await client.hgetall(bucket))) {
        const next = field.startsWith('b:') ? olderBooking(value, ms) : older[field]?.(value);
        if (next !== undefined) pipeline.hset(bucket, field, next);
      }
    for (const set of [keys.outerLeases, keys.innerLeases, keys.bookings])
      for (const member of await client.zrange(set, 0, '-1')) pipeline.zincrby(set, -ms, member);
    await pipeline.exec();
  });
}

const less = (by: number) => (value: string) => String(Number(value) - by);

function olderBooking(value: string, ms: number): string {
  const [slot = '', until = '', input = '', output = '', line = '', ...lines] = value.split(' ');
  const moved = lines.map((one) => {
    const [number = '', after = '', cost = ''] = one.split(':');
    return [number, less(ms * 1_000)(after), cost].join(':');
  });
  return [less(ms * 1_000)(slot), less(ms)(until), input, output, line, ...moved].join(' ');
}
