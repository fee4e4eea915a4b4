// What goes wrong in a run. Each seed takes a part of the kinds only ("swarm testing", Groce et al., ISSTA 2012: runs that leave kinds out
// find more than runs that mix all of them), and only so many faults, so that calls still come to their end.

import type { Callers } from './callers.ts';
import type { Random } from './random.ts';
import type { RedisServer } from './redis-in-world.ts';
import type { Scenario } from './scenario.ts';
import type { Tables } from './tables.ts';
import type { Worker } from './workers.ts';
import { isCritical, type Op, type OpFault, type Process, type World } from './world.ts';

const OP_FAULTS = ['fail', 'lose', 'ghost', 'twice'] as const satisfies readonly OpFault[];
const EVENTS = [
  'kill',
  'freeze',
  'hand over',
  'cut off',
  'postgres away',
  'flush',
  'snapshot',
  'restart empty',
  'restart old',
  'raise gate',
  'cancel',
  'duplicate',
  'set limits',
  'turn window',
] as const;

export type EventKind = (typeof EVENTS)[number];

export type FaultParts = {
  readonly world: World;
  readonly server: RedisServer;
  readonly tables: Tables;
  readonly callers: Callers;
  readonly scenario: Scenario;
  readonly workers: () => readonly Worker[];
  readonly replace: (worker: Worker) => void;
  readonly onRedisLost: (isSnapshot: boolean) => void;
};

/** These take nothing from a worker that is at a request. */
const HARMLESS: ReadonlySet<EventKind> = new Set([
  'cancel',
  'duplicate',
  'snapshot',
  'set limits',
  'raise gate',
]);
const FREEZES_MS = [500, 1_900, 2_500, 4_500] as const;
const AWAY_MS = [200, 900, 2_600] as const;

export class Faults {
  readonly #parts: FaultParts;
  readonly #opKinds: readonly OpFault[];
  readonly #eventKinds: readonly EventKind[];
  readonly #opShare: number;
  readonly #eventShare: number;
  #left: number;
  #cutUntilMs = new Map<Process, number>();
  #postgresAwayUntilMs = 0;

  constructor(parts: FaultParts) {
    this.#parts = parts;
    const { random } = parts.world;
    const inclusion = random.pick([0.2, 0.35, 0.6]);
    this.#opKinds = OP_FAULTS.filter(() => random.chance(inclusion));
    this.#eventKinds = EVENTS.filter(() => random.chance(inclusion));
    this.#opShare = this.#opKinds.length === 0 ? 0 : random.pick([0, 0.02, 0.02, 0.06, 0.06]);
    this.#eventShare = this.#eventKinds.length === 0 ? 0 : random.pick([0, 0.03, 0.03, 0.06, 0.06, 0.1]);
    this.#left = random.pick([0, 2, 4, 8, 8, 14]);
    parts.world.opFault = (op) => this.#opFault(op);
    parts.world.isReachable = (op) => this.#isReachable(op);
    parts.world.note(() => `faults: ${this.#left} of ${[...this.#opKinds, ...this.#eventKinds].join(', ')}`);
  }

  /** Everything works from now on; what is cut off or frozen comes back. */
  stop(): void {
    this.#left = 0;
    this.#postgresAwayUntilMs = 0;
    for (const { process } of this.#parts.workers()) {
      process.frozenUntilMs = 0;
      this.#heal(process);
    }
    this.#cutUntilMs.clear();
  }

  get isOver(): boolean {
    return this.#left === 0 && this.#cutUntilMs.size === 0;
  }

  /** Between two steps. */
  async maybe(): Promise<void> {
    const { random } = this.#parts.world;
    const { last } = this.#parts.world;
    const isEventful = last !== undefined && isCritical(last.what);
    // Old data is worst when it is of just before a step that matters.
    if (this.#eventKinds.includes('restart old') && isEventful && random.chance(0.05))
      await this.#play('snapshot');
    const weight = isEventful ? 2.5 : 0.4;
    if (this.#left === 0 || !random.chance(weight * this.#eventShare)) return;
    this.#left -= 1;
    await this.#play(random.pick(this.#eventKinds));
    // What takes one thing down often takes another one with it.
    if (random.chance(0.3)) await this.#play(random.pick(this.#eventKinds));
  }

  #opFault(op: Op): OpFault {
    const { random } = this.#parts.world;
    if (this.#left === 0 || !random.chance(this.#opShare)) return 'none';
    const kind = random.pick(this.#opKinds);
    // Only scripts are repeated, and a request to a provider is not sent after its connection was given up.
    if ((kind === 'twice' && op.store !== 'redis') || (kind === 'ghost' && op.store === 'provider'))
      return 'none';
    this.#left -= 1;
    this.#parts.world.isDisturbed = true;
    return kind;
  }

  #isReachable({ process, store, connection }: Op): boolean {
    const { world, server } = this.#parts;
    if (store === 'postgres') return this.#postgresAwayUntilMs <= world.nowMs;
    if (store !== 'redis') return true;
    return connection === server.number() && !this.#cutUntilMs.has(process);
  }

  async #play(kind: EventKind): Promise<void> {
    const { world, server, tables, callers, scenario, workers } = this.#parts;
    const { random } = world;
    const alive = workers().filter(({ process }) => !process.isDead);
    const busy = alive.filter(({ process }) => process === world.last?.process);
    // Mostly whoever is in the middle of something.
    const victim = () => (busy.length > 0 && random.chance(0.6) ? busy[0] : pickOne(random, alive));
    world.note(() => `FAULT ${kind}`);
    if (!HARMLESS.has(kind)) world.isDisturbed = true;
    switch (kind) {
      case 'kill':
        return this.#kill(victim());
      case 'freeze':
        return this.#freeze(victim());
      case 'hand over':
        return this.#handOver(victim());
      case 'cut off':
        return this.#cutOff(victim()?.process);
      case 'postgres away':
        this.#postgresAwayUntilMs = world.nowMs + random.pick(AWAY_MS);
        world.breakConnections('postgres', () => true);
        return undefined;
      case 'flush':
        world.dropRepeats();
        await server.flush();
        return this.#parts.onRedisLost(false);
      case 'snapshot':
        return server.snapshot();
      case 'restart empty':
      case 'restart old':
        return this.#restart(kind === 'restart old');
      case 'raise gate':
        for (const [tenantId, gate] of tables.gates)
          tables.gates.set(tenantId, { ...gate, generation: gate.generation + 1n });
        return undefined;
      case 'cancel':
        return callers.cancel(random.int(scenario.calls.length));
      case 'duplicate':
        return callers.duplicate(random.int(scenario.calls.length));
      case 'set limits':
        return this.#setLimits();
      case 'turn window':
        world.nowMs = Math.max(world.nowMs, scenario.turnsAtMs - random.int(4));
        return undefined;
      default:
        return kind satisfies never;
    }
  }

  #kill(worker: Worker | undefined): void {
    if (worker === undefined) return;
    const { world, callers, replace } = this.#parts;
    world.note(() => `kill ${worker.process.name}`);
    world.kill(worker.process);
    this.#cutUntilMs.delete(worker.process);
    callers.lose(worker);
    replace(worker);
  }

  #freeze(worker: Worker | undefined): void {
    if (worker === undefined) return;
    const { world, callers } = this.#parts;
    const { process } = worker;
    if (!world.isFrozen(process)) process.frozeAtMs = world.nowMs;
    process.frozenUntilMs = world.nowMs + world.random.pick(FREEZES_MS);
    world.note(() => `freeze ${process.name}`);
    callers.lose(worker);
  }

  #handOver(worker: Worker | undefined): void {
    if (worker === undefined || worker.process.isStopping) return;
    const { world, callers, replace } = this.#parts;
    worker.process.isStopping = true;
    callers.handOver(worker);
    world.after(1_600, () => {
      if (worker.process.isDead) return;
      world.kill(worker.process);
      callers.lose(worker);
      replace(worker);
    });
  }

  #cutOff(process: Process | undefined): void {
    if (process === undefined) return;
    const { world } = this.#parts;
    world.note(() => `cut off ${process.name}`);
    const untilMs = world.nowMs + world.random.pick(AWAY_MS);
    this.#cutUntilMs.set(process, untilMs);
    world.breakConnections('redis', (op) => op.process === process);
    world.after(untilMs - world.nowMs, () => {
      if (this.#cutUntilMs.get(process) !== untilMs) return;
      this.#cutUntilMs.delete(process);
      this.#heal(process);
    });
  }

  /** A new connection: the run id is asked for again. */
  #heal(process: Process): void {
    const { world, server } = this.#parts;
    if (!this.#cutUntilMs.has(process) && process.connection === server.number()) return;
    process.connection = server.number();
    process.connectedAtMs = world.nowMs;
    process.runId = undefined;
  }

  async #restart(withSnapshot: boolean): Promise<void> {
    const { world, server, workers, onRedisLost } = this.#parts;
    await server.restart(withSnapshot);
    onRedisLost(withSnapshot);
    world.breakConnections('redis', () => true);
    for (const { process } of workers())
      world.after(world.random.int(300), () => this.#heal(process), { process });
  }

  /** Another amount, or a limit over a window that nobody counted yet. */
  #setLimits(): void {
    const { world, tables, scenario, workers } = this.#parts;
    const { random } = world;
    const { scope, limit } = random.pick(scenario.limits);
    const window = random.chance(0.4) ? random.pick(['total', 'hour', 'day'] as const) : limit.window;
    const amount = (limit.amount * BigInt(40 + random.int(160))) / 100n;
    const name = `${scope.kind} ${scope.id}`;
    const others = (tables.limits.get(name) ?? []).filter(
      (own) => own.unit !== limit.unit || own.window !== window,
    );
    world.note(() => `limit of ${name} is ${amount} ${limit.unit} per ${window}`);
    tables.limits.set(name, [...others, { ...limit, window, amount }]);
    for (const { spendBreaker } of workers()) spendBreaker.forget('tenant');
  }
}

function pickOne<Item>(random: Random, items: readonly Item[]): Item | undefined {
  return items.length === 0 ? undefined : random.pick(items);
}
