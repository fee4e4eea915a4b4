// The world of one run: its clock, its processes, and every step they take towards a server. A step is parked before it runs and
// again before its answer arrives; which one goes on next is chosen here, and nothing else moves. So the same choices give the same run.

import type { Random } from './random.ts';
import { outside, type Surroundings } from './virtual-time.ts';

export type StoreName = 'redis' | 'postgres' | 'provider';

/** A server did not answer. The command may have run. */
export class StoreAway extends Error {
  readonly store: StoreName;

  constructor(store: StoreName) {
    super(`${store} is away`);
    this.name = 'StoreAway';
    this.store = store;
  }
}

/** One worker. Dead ones never come back; another one takes their place. */
export type Process = {
  readonly name: string;
  readonly surroundings: Surroundings;
  isDead: boolean;
  /** Takes no new work. */
  isStopping: boolean;
  frozenUntilMs: number;
  frozeAtMs: number;
  /** Which Redis server it is connected to; a restarted one has another number. */
  connection: number;
  connectedAtMs: number;
  runId: string | undefined;
};

export type Op = {
  readonly process: Process;
  readonly store: StoreName;
  readonly what: string;
  readonly connection: number;
  readonly issuedAtMs: number;
  /** Neither it nor its answer moves before. */
  notBeforeMs: number;
  /** Parts of it that run apart, the first of which is a look only. */
  readonly stages: (() => unknown)[];
  resolve(value: unknown): void;
  reject(error: unknown): void;
  answer?: { readonly value: unknown } | { readonly error: unknown };
};

type Timer = {
  readonly process: Process | undefined;
  atMs: number;
  readonly order: number;
  readonly work: () => void;
  readonly repeatMs: number | undefined;
};

/** A command that runs although nobody waits for its answer. */
type Ghost = {
  readonly op: Op;
  readonly untilMs: number;
  /** A repetition of what ran before goes with the data it ran on. */
  readonly repeats: boolean;
};

export type OpFault = 'none' | 'fail' | 'lose' | 'ghost' | 'twice';

/** Chosen per run, so that some runs are calm and some are hectic. */
export type Pace = {
  /** How likely the process that moved last moves again. */
  readonly stickiness: number;
  /** How likely the clock jumps although somebody could move. */
  readonly jumpiness: number;
  /** How likely a command, or its answer, stays under way while the others go on. */
  readonly slowness: number;
};

const GHOST_MS = 1_500;
const SLOW_MS = [30, 150, 600, 1_600] as const;
const JUMPS_MS = [40, 300, 900, 2_100] as const;
/** Polls of a few milliseconds are slowed down: a timer only promises "not before", and a run has only so many steps. */
const SLOWEST_POLL_MS = 50;
const POLL_FACTOR = 40;

export class World {
  readonly random: Random;
  readonly trace: string[] | undefined;
  readonly processes: Process[] = [];
  nowMs: number;
  steps = 0;
  /** What happens to a command; replaced by whoever plays the faults. */
  opFault: (op: Op) => OpFault = () => 'none';
  isReachable: (op: Op) => boolean = () => true;
  pace: Pace = { stickiness: 0.5, jumpiness: 0, slowness: 0 };
  violation: string | undefined;
  /** Something happened that may keep a healthy worker from showing that it lives. */
  isDisturbed = false;
  /** The command that ran last. */
  last: Op | undefined;
  #ops: Op[] = [];
  #timers: Timer[] = [];
  #ghosts: Ghost[] = [];
  #order = 0;
  #last: Process | undefined;

  constructor(random: Random, startMs: number, isTraced: boolean) {
    this.random = random;
    this.nowMs = startMs;
    this.trace = isTraced ? [] : undefined;
  }

  note(text: () => string): void {
    this.trace?.push(`${String(this.steps).padStart(4)} ${this.nowMs % 100_000_000} ${text()}`);
  }

  /** Ends the run. The first violation counts. */
  violated(text: string): void {
    this.violation ??= text;
    this.note(() => `VIOLATION ${text}`);
  }

  require(holds: boolean, text: () => string): void {
    if (!holds) this.violated(text());
  }

  addProcess(name: string, { skewMs, connection }: { skewMs: number; connection: number }): Process {
    const added: Process = {
      name,
      isDead: false,
      isStopping: false,
      frozenUntilMs: 0,
      frozeAtMs: 0,
      connection,
      connectedAtMs: this.nowMs,
      runId: undefined,
      surroundings: {
        nowMs: () => this.nowMs + skewMs,
        monotonicMs: () => this.nowMs,
        random: () => this.random.next(),
        startTimer: (ms, work, repeat) => {
          const delay = ms > 0 && ms < SLOWEST_POLL_MS ? ms * POLL_FACTOR : Math.max(1, ms);
          return this.after(delay, work, { process: added, ...(repeat ? { repeatMs: ms } : {}) });
        },
      },
    };
    this.processes.push(added);
    return added;
  }

  isFrozen(process: Process): boolean {
    return process.frozenUntilMs > this.nowMs;
  }

  /** A timer; one of a process dies with it. Answers what ends it. */
  after(ms: number, work: () => void, options: { process?: Process; repeatMs?: number } = {}): () => void {
    this.#order += 1;
    const timer: Timer = {
      process: options.process,
      atMs: this.nowMs + ms,
      order: this.#order,
      work,
      repeatMs: options.repeatMs,
    };
    this.#timers.push(timer);
    return () => {
      this.#timers = this.#timers.filter((other) => other !== timer);
    };
  }

  /** A command to a server. It runs when the scheduler says so, if at all. */
  op(process: Process, store: StoreName, what: string, ...stages: (() => unknown)[]): Promise<unknown> {
    return new Promise((resolve, reject) => {
      if (process.isDead) return;
      const { connection } = process;
      const issuedAtMs = this.nowMs;
      const notBeforeMs = issuedAtMs + this.#delay(what);
      this.#ops.push({ process, store, what, connection, issuedAtMs, notBeforeMs, stages, resolve, reject });
    });
  }

  #delay(what: string): number {
    return this.random.chance(isCritical(what) ? 2 * this.pace.slowness : this.pace.slowness / 2)
      ? this.random.pick(SLOW_MS)
      : 0;
  }

  /** Nobody of the process moves again; what it had sent may still arrive. */
  kill(process: Process): void {
    process.isDead = true;
    for (const op of this.#ops)
      if (op.process === process && op.answer === undefined && this.random.chance(0.5))
        this.#haunt(op, false);
    this.#ops = this.#ops.filter((op) => op.process !== process);
    this.#timers = this.#timers.filter((timer) => timer.process !== process);
  }

  /** Commands under way to a server are lost with their connection; some of the answers had arrived. */
  breakConnections(store: StoreName, isConcerned: (op: Op) => boolean): void {
    for (const op of this.#ops.filter((other) => other.store === store && isConcerned(other)))
      if (op.answer === undefined || this.random.chance(0.5)) op.answer = { error: new StoreAway(store) };
    this.#ghosts = this.#ghosts.filter((ghost) => ghost.op.store !== store || !isConcerned(ghost.op));
  }

  dropRepeats(): void {
    this.#ghosts = this.#ghosts.filter((ghost) => !ghost.repeats);
  }

  /** Whether anybody still has something to do. */
  isIdle(): boolean {
    return this.#ops.length === 0 && this.#ghosts.length === 0 && this.#timers.length === 0;
  }

  /** Whether a command of these processes is between its look and its write. */
  isHalfway(what: string): boolean {
    return this.#ops.some((op) => op.what === what && op.answer === undefined && op.stages.length === 1);
  }

  /** One move of one participant. False when there is nothing that could ever move. */
  async step(): Promise<boolean> {
    this.steps += 1;
    const move = this.#choose();
    if (move === undefined) return false;
    await move();
    // Everything that follows from the move without another server happens now: microtasks end before the next macrotask.
    await new Promise((resolve) => setImmediate(resolve));
    return true;
  }

  #choose(): (() => Promise<void> | void) | undefined {
    this.nowMs += this.random.int(4);
    if (this.random.chance(this.pace.jumpiness)) this.nowMs += this.random.pick(JUMPS_MS);
    for (;;) {
      // Timers may be late, by a little or by much.
      const move = this.random.chance(0.25)
        ? (this.#opMove() ?? this.#timerMove())
        : (this.#timerMove() ?? this.#opMove());
      if (move !== undefined) return move;
      const next = this.#nextTimerMs();
      if (next === undefined) return undefined;
      this.nowMs = Math.max(this.nowMs, next);
    }
  }

  #timerMove(): (() => void) | undefined {
    let due: Timer | undefined;
    for (const timer of this.#timers) {
      if (timer.atMs > this.nowMs || (timer.process !== undefined && this.isFrozen(timer.process))) continue;
      if (due === undefined || timer.atMs < due.atMs || (timer.atMs === due.atMs && timer.order < due.order))
        due = timer;
    }
    if (due === undefined) return undefined;
    const timer = due;
    if (timer.repeatMs === undefined) this.#timers = this.#timers.filter((other) => other !== timer);
    else timer.atMs = this.nowMs + timer.repeatMs;
    return timer.work;
  }

  #nextTimerMs(): number | undefined {
    const times = [
      ...this.#timers.map(({ process, atMs }) => Math.max(atMs, process?.frozenUntilMs ?? 0)),
      ...this.#ops.map(({ process, notBeforeMs }) => Math.max(process.frozenUntilMs, notBeforeMs)),
    ];
    return times.length === 0 ? undefined : Math.min(...times);
  }

  #opMove(): (() => Promise<void> | void) | undefined {
    this.#ghosts = this.#ghosts.filter((ghost) => ghost.untilMs >= this.nowMs);
    if (this.#ghosts.length > 0 && this.random.chance(0.15)) return () => this.#runGhost();
    const ready = this.#ops.filter(
      (op) => op.notBeforeMs <= this.nowMs && (op.answer === undefined || !this.isFrozen(op.process)),
    );
    if (ready.length === 0) return this.#ghosts.length > 0 ? () => this.#runGhost() : undefined;
    const own = ready.filter((op) => op.process === this.#last);
    const among = own.length > 0 && this.random.chance(this.pace.stickiness) ? own : ready;
    const op = this.random.pick(among);
    this.#last = op.process;
    if (op.answer !== undefined) return () => this.#deliver(op);
    return () => this.#execute(op);
  }

  async #runGhost(): Promise<void> {
    const ghost = this.random.pick(this.#ghosts);
    this.#ghosts = this.#ghosts.filter((other) => other !== ghost);
    if (!this.isReachable(ghost.op)) return;
    this.note(() => `${ghost.op.process.name} ${ghost.op.what} (ghost)`);
    await this.#runStages(ghost.op);
  }

  async #execute(op: Op): Promise<void> {
    if (!this.isReachable(op)) {
      op.answer = { error: new StoreAway(op.store) };
      this.note(() => `${op.process.name} ${op.what} cannot reach ${op.store}`);
      return;
    }
    const fault = op.stages.length > 1 && this.random.chance(0.5) ? 'look' : this.opFault(op);
    if (fault === 'look') {
      await op.stages.shift()?.();
      this.note(() => `${op.process.name} ${op.what} (halfway)`);
      return;
    }
    if (fault === 'fail' || fault === 'ghost') {
      this.note(() => `${op.process.name} ${op.what} ${fault === 'fail' ? 'fails' : 'times out'}`);
      op.answer = { error: new StoreAway(op.store) };
      if (fault === 'ghost') this.#haunt(op, false);
      return;
    }
    this.last = op;
    const answer = await this.#runStages(op);
    this.note(() => `${op.process.name} ${op.what} → ${show(answer)}${fault === 'lose' ? ' (lost)' : ''}`);
    if (fault === 'twice') this.#haunt(op, true);
    op.answer = fault === 'lose' ? { error: new StoreAway(op.store) } : answer;
    op.notBeforeMs = this.nowMs + this.#delay(op.what);
    if (op.notBeforeMs === this.nowMs && !this.isFrozen(op.process) && this.random.chance(0.6))
      this.#deliver(op);
  }

  async #runStages(op: Op): Promise<{ value: unknown } | { error: unknown }> {
    try {
      let value: unknown;
      for (const stage of op.stages) value = await outside(stage);
      return { value };
    } catch (error) {
      if (error instanceof Error && error.name === 'ReplyError')
        this.violated(`a script failed: ${op.what}: ${error.message}`);
      return { error };
    }
  }

  #deliver(op: Op): void {
    this.#ops = this.#ops.filter((other) => other !== op);
    if (op.answer === undefined) throw new Error('there is no answer to deliver');
    if ('error' in op.answer) op.reject(op.answer.error);
    else op.resolve(op.answer.value);
  }

  #haunt(op: Op, repeats: boolean): void {
    this.#ghosts.push({ op, repeats, untilMs: this.nowMs + GHOST_MS });
  }
}

/** A step of an attempt or of a rebuild, around which orders matter most. */
export function isCritical(what: string): boolean {
  return /^(hold|intent|markSent|take|resolve|release|settle|restore|hydrate|sums|adjust)/.test(what);
}

function show(answer: { value: unknown } | { error: unknown }): string {
  if ('error' in answer) return `error ${answer.error}`;
  const text = JSON.stringify(answer.value, (_, value) => (typeof value === 'bigint' ? `${value}` : value));
  return (text ?? 'nothing').slice(0, 160);
}
