// One of the processes that ask for permits without a rest (rate-accuracy.ts). Each lane makes one call after another: it asks, waits as
// long as it is told, and comes again, as a workflow would.

import { setTimeout as sleep } from 'node:timers/promises';
import type { RateRequest, RateRules } from '../src/stores/rate-rules.ts';
import { createRates } from '../src/stores/rates.ts';
import type { Redis } from '../src/stores/redis.ts';
import { joinBenchStores } from './harness.ts';

export const LIMIT = { rpm: 600, tpm: 60_000 } as const;
export const TOKENS = 100;

/** Which of a call's limits is the tight one. Every scenario has a provider, a model and a tenant of its own. */
export const SCENARIOS = ['provider rpm', 'provider tpm', 'tier rpm', 'tier tpm'] as const;
export type Scenario = (typeof SCENARIOS)[number];

export type Order = { readonly lanes: number; readonly untilMs: number };
/** Times are milliseconds since 1970, on the one clock of the machine. */
export type Permit = {
  readonly scenario: Scenario;
  readonly grantedMs: number;
  /** When the bucket had it: at once, or at the place that was booked. */
  readonly slotMs: number;
};
export type Report = {
  readonly permits: readonly Permit[];
  readonly calls: Readonly<Record<Scenario, { admit: number; redeem: number }>>;
};

const WIDE = { rpm: 100_000, tpm: 10_000_000 };

const [postgres = '', redisUrl = '', name = ''] = process.argv.slice(2);
const bench = await joinBenchStores({ postgres, redis: redisUrl }, name);
process.on('message', (order: Order) => void obey(order));
process.on('disconnect', () => process.exit(0));
process.send?.('ready');

async function obey({ lanes, untilMs }: Order): Promise<void> {
  const permits: Permit[] = [];
  const calls = Object.fromEntries(
    SCENARIOS.map((scenario) => [scenario, { admit: 0, redeem: 0 }]),
  ) as Record<
    Scenario,
    { admit: number; redeem: number } // an entry for each scenario
  >;
  await Promise.all(
    SCENARIOS.flatMap((scenario) => {
      const rates = ratesOf(scenario, calls[scenario]);
      return Array.from({ length: lanes }, (_, lane) => run({ scenario, rates, lane, untilMs, permits }));
    }),
  );
  process.send?.({ permits, calls } satisfies Report);
}

/** The rates of a scenario, on a connection that counts what is asked of the provider's slot. */
function ratesOf(scenario: Scenario, counts: { admit: number; redeem: number }) {
  const redis: Redis = {
    ...bench.redis,
    run: (script, keys, args) => {
      if (keys[0]?.includes('{p:') && 'name' in script) {
        if (script.name.endsWith('rate_admit')) counts.admit += 1;
        if (script.name.endsWith('rate_redeem')) counts.redeem += 1;
      }
      return bench.redis.run(script, keys, args);
    },
  };
  const [bucket = '', dimension = ''] = scenario.split(' ');
  const tight = { ...WIDE, [dimension]: LIMIT[dimension === 'rpm' ? 'rpm' : 'tpm'] };
  const rules: Partial<RateRules> = {
    provider: () => (bucket === 'provider' ? tight : WIDE),
    model: () => WIDE,
    tier: () => (bucket === 'tier' ? tight : WIDE),
    tierOf: () => 'small',
  };
  return createRates(redis, { leaseMs: 120_000, rules });
}

type Lane = {
  readonly scenario: Scenario;
  readonly rates: ReturnType<typeof ratesOf>;
  readonly lane: number;
  readonly untilMs: number;
  readonly permits: Permit[];
};

async function run({ scenario, rates, lane, untilMs, permits }: Lane): Promise<void> {
  const id = scenario.replace(' ', '-');
  for (let call = 1; ; call += 1) {
    const callKey = `${process.pid}-${lane}-${call}:run:answer:1`;
    let [isBooked, slotMs] = [false, 0];
    for (let visit = 1; ; visit += 1) {
      const request: RateRequest = {
        ...{ provider: id, model: `${id}/one`, tenantId: id, callKey, candidate: 0 },
        ...{ attemptKey: `${callKey}#0.${visit}.1.0`, priority: 'normal', isBooked },
        tokens: { input: TOKENS, output: 0 },
      };
      const askedMs = performance.timeOrigin + performance.now();
      const answer = await rates.admit(request);
      const answeredMs = performance.timeOrigin + performance.now();
      if (answer.kind === 'admitted') {
        permits.push({
          scenario,
          grantedMs: answeredMs,
          slotMs: isBooked ? slotMs : (askedMs + answeredMs) / 2,
        });
        break;
      }
      if (answeredMs + answer.ms > untilMs) return;
      if (answer.isBooked && !isBooked) slotMs = (askedMs + answeredMs) / 2 + answer.ms;
      ({ isBooked } = answer);
      await sleep(answer.ms);
    }
  }
}
