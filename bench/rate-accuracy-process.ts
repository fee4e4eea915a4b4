// One of the processes that ask for permits without a rest (rate-accuracy.ts). Each lane makes one call after another: it asks, waits as
// long as it is told, and comes again, as a workflow would.

import { setTimeout as sleep } from 'node:timers/promises';
import type { RateRequest, RateRules } from '../src/stores/rate-rules.ts';
import { createRates } from '../src/stores/rates.ts';
import type { Redis, StoredFunction } from '../src/stores/redis.ts';
import { joinBenchStores } from './harness.ts';
import {
  type Ask,
  LIMIT,
  type Order,
  type Permit,
  type Report,
  SCENARIOS,
  type Scenario,
  TOKENS,
} from './rate-scenarios.ts';

const WIDE = { rpm: 100_000, tpm: 10_000_000 };

const [postgres = '', redisUrl = '', name = ''] = process.argv.slice(2);
const bench = await joinBenchStores({ postgres, redis: redisUrl }, name);
process.on('message', (order: Order) => void obey(order));
process.on('disconnect', () => process.exit(0));
// So that the server has the library: a transaction would not bring it.
await createRates(bench.redis, { leaseMs: 1_000 }).admit({
  ...{ provider: 'none', model: 'none/none', tenantId: 'none', callKey: 'none', candidate: 0 },
  ...{ attemptKey: `${process.pid}`, priority: 'normal', tokens: { input: 0, output: 0 } },
});
process.send?.('ready');

async function obey({ lanes, untilMs }: Order): Promise<void> {
  const permits: Permit[] = [];
  const asks = Object.fromEntries(SCENARIOS.map((scenario) => [scenario, []])) as unknown as Record<
    Scenario,
    Ask[]
  >; // an entry for each
  const calls = Object.fromEntries(
    SCENARIOS.map((scenario) => [scenario, { admit: 0, redeem: 0 }]),
  ) as Record<
    Scenario,
    { admit: number; redeem: number } // an entry for each scenario
  >;
  await Promise.all(
    SCENARIOS.flatMap((scenario) => {
      return Array.from({ length: lanes[scenario] }, (_, lane) => {
        const clock = { ms: 0 };
        const rates = ratesOf(scenario, { counts: calls[scenario], asks: asks[scenario] }, clock);
        return run({ scenario, rates, clock, lane, untilMs, permits });
      });
    }),
  );
  process.send?.({ permits, asks, calls } satisfies Report);
}

/** What the server's clock said when the tight bucket last answered a lane. */
type Clock = { ms: number };

/** The rates of a scenario, on a connection that counts what is asked of the provider's slot, and reads the server's clock with it. */
function ratesOf(
  scenario: Scenario,
  { counts, asks }: { readonly counts: { admit: number; redeem: number }; readonly asks: Ask[] },
  clock: Clock,
) {
  const tightSlot = scenario.startsWith('tier') ? '{t:' : '{p:';
  const redis: Redis = {
    ...bench.redis,
    run: async (script, keys, args) => {
      if (!('name' in script)) return bench.redis.run(script, keys, args);
      const isAdmission = script.name.endsWith('rate_admit');
      if (keys[0]?.includes('{p:')) counts[isAdmission ? 'admit' : 'redeem'] += 1;
      const { ms, answer } = await timed(script, keys, args);
      if (!keys[0]?.includes(tightSlot)) return answer;
      clock.ms = ms;
      if (isAdmission) asks.push({ atMs: ms, ...toAsk(answer) });
      return answer;
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

/** A function's answer with the server's time at which it ran. */
async function timed(script: StoredFunction, keys: readonly string[], args: readonly (string | number)[]) {
  const answers = await bench.redis.command((client) =>
    client
      .multi()
      .time()
      .fcall(script.name, keys.length, ...keys, ...args)
      .exec(),
  );
  const [time, answer] = answers ?? [];
  if (answer?.[0] instanceof Error) throw answer[0];
  const [seconds, micros] = (time?.[1] ?? []) as string[];
  return { ms: Number(seconds) * 1_000 + Number(micros) / 1_000, answer: answer?.[1] };
}

/** What rate-admit.lua answers: 0, or the wait and, third, whether it is booked. */
function toAsk(answer: unknown): Omit<Ask, 'atMs'> {
  const [ms = 0, , booked = 0] = Array.isArray(answer) ? (answer as number[]) : [];
  return { ms, isTaken: ms === 0 || booked === 1 };
}

type Lane = {
  readonly scenario: Scenario;
  readonly rates: ReturnType<typeof ratesOf>;
  readonly clock: Clock;
  readonly lane: number;
  readonly untilMs: number;
  readonly permits: Permit[];
};

async function run({ scenario, rates, clock, lane, untilMs, permits }: Lane): Promise<void> {
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
      const answer = await rates.admit(request);
      const { ms } = clock;
      if (answer.kind === 'admitted') {
        permits.push({ scenario, grantedMs: ms, slotMs: isBooked ? slotMs : ms });
        break;
      }
      if (ms + answer.ms > untilMs) return;
      if (answer.isBooked && !isBooked) slotMs = ms + answer.ms;
      ({ isBooked } = answer);
      await sleep(answer.ms);
    }
  }
}
