// One seed: a world is set up, played with faults, brought to rest, and looked at. What must hold is in book.ts and at the end here.

import type { Redis as Client } from 'ioredis';
import { reap } from '../../src/calls/reaper.ts';
import { createCalendars } from '../../src/stores/calendars.ts';
import { createGate, type Gate } from '../../src/stores/gate.ts';
import { createHydrate } from '../../src/stores/hydrate.ts';
import { budgetKeys } from '../../src/stores/keys.ts';
import type { Limit } from '../../src/task/budget.ts';
import { fromIntervalKey } from '../../src/task/window.ts';
import { readCounters } from '../support/scope-counters.ts';
import { allScopes, Book, intervalAt, show } from './book.ts';
import { Callers } from './callers.ts';
import { Faults } from './faults.ts';
import { createRandom } from './random.ts';
import { createRedisServer, type RedisServer } from './redis-in-world.ts';
import { createScenario, type Scenario } from './scenario.ts';
import { Tables } from './tables.ts';
import { within } from './virtual-time.ts';
import { createWorker, LEASE_MS, type Worker } from './workers.ts';
import { type Process, World } from './world.ts';

export type RunReport = {
  readonly seed: number;
  readonly violation: string | undefined;
  readonly steps: number;
  /** How the calls ended. */
  readonly ends: readonly string[];
  readonly requests: number;
  readonly trace: readonly string[];
};

/** Faults end here at the latest. */
const HECTIC_STEPS = 450;
const CALM_STEPS = 2_500;
const REAPER_MS = 1_300;
const REST_STEPS = 4_000;
/** An adjustment whose worker died is repeated by the reaper once it is five seconds old. */
const ADJUSTMENTS_MS = 8_000;
const RESTART_MS = 400;
/** Longer than a rebuild keeps others waiting (stores/hydrate.ts). */
const FENCE_MS = 11_000;

const CALENDARS = createCalendars({ zone: 'UTC', weekStart: 'monday' });

export async function runSeed(
  seed: number,
  options: { readonly client: Client; readonly prefix: string; readonly isTraced?: boolean },
): Promise<RunReport> {
  const random = createRandom(seed);
  const scenario = createScenario(random);
  const world = new World(random, scenario.startMs, options.isTraced === true);
  const run = setUp(world, scenario, createRedisServer(world, options.client, options.prefix));
  try {
    await play(run);
    await rest(run);
    if (world.violation === undefined) await look(run);
  } finally {
    for (const process of world.processes) process.isDead = true;
    await run.server.flush();
  }
  return {
    seed,
    violation: world.violation,
    steps: world.steps,
    ends: run.callers.ends(),
    requests: run.book.requests.size,
    trace: world.trace ?? [],
  };
}

type Run = ReturnType<typeof setUp>;

function setUp(world: World, scenario: Scenario, server: RedisServer) {
  const tables = new Tables(() => world.nowMs);
  for (const { scope, limit } of scenario.limits) {
    const name = `${scope.kind} ${scope.id}`;
    const own = (tables.limits.get(name) ?? []).filter(
      (other) => other.unit !== limit.unit || other.window !== limit.window,
    );
    tables.limits.set(name, [...own, limit]);
  }
  tables.gate('tenant');
  const book = new Book(world, tables, LEASE_MS);
  server.onScript = book.onScript;
  world.pace = scenario.pace;
  world.isDisturbed = scenario.pace.slowness > 0 || scenario.pace.jumpiness > 0;
  const parts = { world, tables, book, server, calendars: CALENDARS, rateControl: scenario.rateControl };
  const workers: Worker[] = [];
  const hire = () => {
    const skewMs = world.random.pick([0, 0, 0, -700, 900]);
    const process = world.addProcess(`worker${workers.length}`, { skewMs, connection: server.number() });
    workers.push(createWorker(parts, process));
  };
  for (let count = 0; count < scenario.workers; count += 1) hire();
  // Somebody always remains who could go on.
  hire();
  world.note(
    () => `limits: ${[...tables.limits].map(([name, own]) => `${name}: ${own.map(showLimit)}`).join('; ')}`,
  );
  const callers = new Callers({ world, book, tables, workers: () => workers }, scenario.calls);
  const faults = new Faults({
    world,
    server,
    tables,
    callers,
    scenario,
    workers: () => workers,
    replace: () => world.after(RESTART_MS, hire),
    onRedisLost: (isSnapshot) => book.forgetsRedis(isSnapshot),
  });
  return {
    world,
    scenario,
    tables,
    book,
    server,
    workers,
    callers,
    faults,
    reaper: createReaper(world, callers, () => workers),
  };
}

function showLimit({ unit, window, amount, hard }: Limit): string {
  return `${amount} ${unit} per ${window}${hard ? '' : ' (soft)'}`;
}

/** One pass at a time, on whichever worker; a pass whose worker is gone is given up. */
function createReaper(world: World, callers: Callers, workers: () => readonly Worker[]) {
  let on: Process | undefined;
  let nextAtMs = world.nowMs + REAPER_MS;
  let passes = 0;
  return {
    passes: () => passes,
    maybe(): void {
      if (world.nowMs < nextAtMs || (on !== undefined && !on.isDead && !world.isFrozen(on))) return;
      const able = workers().filter(({ process }) => !process.isDead && !world.isFrozen(process));
      if (able.length === 0) return;
      const { process, dependencies } = world.random.pick(able);
      on = process;
      nextAtMs = world.nowMs + REAPER_MS;
      const lifeOf = async (owner: string) => callers.lifeOf(owner);
      const over = () => {
        passes += 1;
        if (on === process) on = undefined;
      };
      // A pass that fails comes again.
      within(process.surroundings, () => reap(dependencies, lifeOf)).then(over, over);
    },
  };
}

async function play({ world, callers, faults, reaper, scenario }: Run): Promise<void> {
  callers.lostEnds = world.random.pick([0, 0, 0.05, 0.15]);
  while (world.violation === undefined && !callers.isDone() && world.steps < HECTIC_STEPS) {
    await faults.maybe();
    reaper.maybe();
    if (!(await world.step())) break;
  }
  faults.stop();
  callers.lostEnds = 0;
  world.pace = { ...scenario.pace, jumpiness: 0, slowness: 0 };
  const until = world.steps + CALM_STEPS;
  while (world.violation === undefined && !callers.isDone() && world.steps < until) {
    reaper.maybe();
    if (!(await world.step())) break;
  }
  world.require(callers.isDone(), () => `calls do not come to an end: ${callers.openCalls().join(', ')}`);
}

/** Workers that were frozen finish, and the reaper ends what nobody else does. */
async function rest({ world, tables, reaper, server, book }: Run): Promise<void> {
  world.note(() => 'REST');
  const { holds, leases } = budgetKeys(server.prefix, 'tenant');
  const until = world.steps + REST_STEPS;
  const isQuiet = async () => {
    if ([...tables.attempts.values()].some(({ state }) => state === 'started')) return false;
    if ([...book.requests.values()].some(({ isUnderWay, process }) => isUnderWay && !process.isDead))
      return false;
    const [held, leased] = await server.direct.command((client) =>
      Promise.all([client.hlen(holds), client.zcard(leases)]),
    );
    return held === 0 && leased === 0;
  };
  const lastAdjustmentMs = () =>
    Math.max(0, ...tables.entries.filter(({ kind }) => kind === 'adjust').map(({ atMs }) => atMs));
  let seen = -1;
  while (world.violation === undefined && world.steps < until) {
    // Nothing moves by itself any more: the time of the next pass is all that is left to wait for.
    if (world.isIdle()) world.nowMs += REAPER_MS;
    reaper.maybe();
    await world.step();
    if (reaper.passes() === seen) continue;
    seen = reaper.passes();
    if (world.isIdle() && world.nowMs > lastAdjustmentMs() + ADJUSTMENTS_MS && (await isQuiet())) return;
  }
  if (world.violation !== undefined) return;
  const left = await server.direct.command((client) => client.hkeys(holds));
  world.violated(`holds are left for ever: ${left.join(', ') || 'none in Redis'}`);
}

/** What must hold once all is quiet. */
async function look(run: Run): Promise<void> {
  run.book.checkLedger();
  await checkCounters(run);
  await probe(run);
}

/** Counters are what the ledger says, and nothing is held. */
async function checkCounters({ world, scenario, tables, server }: Run): Promise<void> {
  const { scope: keyOf } = budgetKeys(server.prefix, 'tenant');
  const wanted = `${tables.gate('tenant').generation}:${await server.direct.runId()}`;
  for (const scope of allScopes(scenario.calls.map(({ payer }) => payer))) {
    const hash = await readCounters(server.direct, keyOf(scope.kind, scope.id));
    if (hash['hydrated'] !== wanted) continue;
    for (const key of (hash['intervals'] ?? '').split(';').filter((name) => name !== '')) {
      const sums = tables.settled(scope, fromIntervalKey(key));
      const counted = ['usd:settled', 'tokens:settled', 'usd:held', 'tokens:held'].map(
        (field) => hash[`${key}:${field}`],
      );
      const expected = [sums.nanoUsd, sums.tokens, 0n, 0n].map(String);
      world.require(
        counted.join() === expected.join(),
        () =>
          `${scope.kind} ${scope.id} ${key} counts ${counted.join('/')}, and the ledger says ${expected.join('/')}`,
      );
    }
  }
}

/** What is left of a limit is held, and not a token more. */
async function probe({ world, scenario, tables, server }: Run): Promise<void> {
  // A rebuild that somebody left behind no longer keeps others from theirs: nothing may wait here, nobody would wake it.
  world.nowMs += FENCE_MS;
  const { payer } = world.random.pick(scenario.calls);
  const limits = tables.limitsOf(payer).filter(({ hard }) => hard);
  if (limits.length === 0 || world.violation !== undefined) return;
  const limit = world.random.pick(limits);
  const { nanoUsd, tokens } = tables.settled(limit.scope, intervalAt(limit, world.nowMs));
  const left = limit.amount - (limit.unit === 'usd' ? nanoUsd : tokens);
  const process = world.addProcess('probe', { skewMs: 0, connection: server.number() });
  const redis = { ...server.connect(process), run: server.direct.run };
  const gate = createGate(redis, { leaseMs: LEASE_MS, markerTtlMs: 60_000, calendars: CALENDARS });
  const hydrate = createHydrate(redis, {
    leaseMs: LEASE_MS,
    readSums: async ({ scope, intervals }) => tables.sums(scope, intervals),
  });
  const { generation } = tables.gate('tenant');
  const tryToHold = async (amount: bigint) => {
    const answer = await holdHydrated(gate, hydrate, { payer, generation, limit, amount, now: world.nowMs });
    world.note(() => `probe ${amount} of ${show(limit)}: ${answer}`);
    return answer;
  };
  const more = await within(process.surroundings, () => tryToHold(left > 0n ? left + 1n : 1n));
  world.require(more === 'refused', () => `${show(limit)} has ${left} left and holds more: ${more}`);
  if (left <= 0n || limit.amount === 0n) return;
  const exact = await within(process.surroundings, () => tryToHold(left));
  world.require(exact === 'ok', () => `${show(limit)} has ${left} left, which it does not hold: ${exact}`);
}

async function holdHydrated(
  gate: Gate,
  hydrate: ReturnType<typeof createHydrate>,
  {
    payer,
    generation,
    limit,
    amount,
    now,
  }: {
    payer: Scenario['calls'][number]['payer'];
    generation: bigint;
    limit: ReturnType<Tables['limitsOf']>[number];
    amount: bigint;
    now: number;
  },
): Promise<string> {
  const inUsd = limit.unit === 'usd';
  for (let round = 0; round < 10; round += 1) {
    const answer = await gate.hold({
      attemptKey: `probe${amount}#0.1.1.${now}`,
      callKey: `probe${amount}`,
      payer,
      owner: 'probe',
      generation,
      estimate: {
        nanoUsd: inUsd ? amount : 0n,
        tokens: inUsd ? 0 : Number(amount),
        inputTokens: 0,
        maxOutputTokens: 0,
      },
      limits: [limit],
    });
    if (answer.kind !== 'missing') return answer.kind;
    for (const { scope, intervals } of answer.scopes)
      await hydrate({ tenantId: payer.tenantId, scope, intervals, generation });
  }
  return 'never hydrated';
}
