// Who visits calls, as Temporal and a workflow do: attempts are numbered, a worker that shows no life is given up after a while and another
// one tries, outcomes that wait are visited again. It never dies and makes no mistakes.

import type { CallRequest } from '../../src/calls/call.ts';
import { AttemptFailed, CallAborted } from '../../src/calls/govern.ts';
import type { ExceededPolicy, Payer } from '../../src/task/budget.ts';
import type { CallOutcome } from '../../src/task/decision.ts';
import type { AbortPolicy } from '../../src/task/input.ts';
import { formatUsd } from '../../src/task/money.ts';
import type { Book } from './book.ts';
import type { Tables } from './tables.ts';
import { within } from './virtual-time.ts';
import { MODEL, type Worker } from './workers.ts';
import { StoreAway, type World } from './world.ts';

export type CallPlan = {
  readonly callKey: string;
  readonly payer: Payer;
  readonly maxOutputTokens: number;
  readonly onExceeded: ExceededPolicy;
  readonly abort: AbortPolicy;
  readonly startsAtMs: number;
};

/** One attempt of Temporal's at a visit. */
type Run = {
  readonly worker: Worker;
  readonly visit: number;
  readonly attempt: number;
  readonly stop: AbortController;
  readonly letGo: AbortController;
  by: 'cancelled' | 'handover';
  tokensSeen: number;
  isOver: boolean;
};

type Caller = {
  readonly plan: CallPlan;
  visit: number;
  attempt: number;
  heldWaits: number;
  heldMs: number;
  backpressureMs: number;
  turns: number;
  isCancelled: boolean;
  /** The newest one; an older one may still run somewhere. */
  run: Run | undefined;
  end: string | undefined;
};

const HEARTBEAT_TIMEOUT_MS = 2_000;
const RETRY_MS = 300;
const HELD_WAIT_MS = 8_000;
/** A call that waits for windows is not watched for ever. */
const MAX_TURNS = 2;

export class Callers {
  readonly #world: World;
  readonly #book: Book;
  readonly #tables: Tables;
  readonly #workers: () => readonly Worker[];
  readonly #callers: Caller[];
  /** How likely the end of a visit does not reach Temporal. */
  lostEnds = 0;

  constructor(
    parts: { world: World; book: Book; tables: Tables; workers: () => readonly Worker[] },
    plans: readonly CallPlan[],
  ) {
    this.#world = parts.world;
    this.#book = parts.book;
    this.#tables = parts.tables;
    this.#workers = parts.workers;
    this.#callers = plans.map((plan) => ({
      plan,
      visit: 1,
      attempt: 1,
      heldWaits: 0,
      heldMs: 0,
      backpressureMs: 0,
      turns: 0,
      isCancelled: false,
      run: undefined,
      end: undefined,
    }));
    for (const caller of this.#callers)
      this.#world.after(Math.max(0, caller.plan.startsAtMs), () => this.#start(caller));
  }

  ends(): readonly string[] {
    return this.#callers.flatMap(({ end }) => end ?? []);
  }

  isDone(): boolean {
    return this.#callers.every(({ end }) => end !== undefined);
  }

  openCalls(): readonly string[] {
    return this.#callers.filter(({ end }) => end === undefined).map(({ plan }) => plan.callKey);
  }

  /** How long the evidence of an owner's life still holds; what Temporal would say of its attempt. */
  lifeOf(owner: string): number {
    const run = this.#callers.find(
      (caller) => caller.run !== undefined && ownerOf(caller.run, caller.plan.callKey) === owner,
    )?.run;
    if (run === undefined || run.isOver || run.worker.process.isDead) return 0;
    if (!this.#world.isFrozen(run.worker.process)) return HEARTBEAT_TIMEOUT_MS;
    return Math.max(0, run.worker.process.frozeAtMs + HEARTBEAT_TIMEOUT_MS - this.#world.nowMs);
  }

  /** The user no longer wants the call. */
  cancel(index: number): void {
    const caller = this.#callers[index];
    if (caller === undefined || caller.end !== undefined || caller.isCancelled) return;
    caller.isCancelled = true;
    this.#world.note(() => `cancel ${caller.plan.callKey}`);
    const { run } = caller;
    if (run === undefined || run.isOver) caller.end = 'cancelled';
    else this.#stop(run, 'cancelled');
  }

  /** Temporal believes that a worker lost an attempt which in truth goes on. */
  duplicate(index: number): void {
    const caller = this.#callers[index];
    if (caller?.run === undefined || caller.end !== undefined || caller.run.isOver || caller.isCancelled)
      return;
    this.#world.note(() => `another attempt of ${caller.plan.callKey}`);
    this.#retry(caller, caller.run, 0);
  }

  /** A worker stops in good order: its visits are handed over. */
  handOver(worker: Worker): void {
    for (const { run } of this.#callers)
      if (run !== undefined && run.worker === worker && !run.isOver) {
        this.#stop(run, 'handover');
      }
  }

  /** A worker does not move any more: Temporal notices when no heartbeat comes. */
  lose(worker: Worker): void {
    for (const caller of this.#callers) {
      const { run } = caller;
      if (run === undefined || run.worker !== worker || run.isOver) continue;
      this.#world.after(HEARTBEAT_TIMEOUT_MS, () => {
        if (run.isOver || !(worker.process.isDead || this.#world.isFrozen(worker.process))) return;
        this.#retry(caller, run, 0);
      });
    }
  }

  /** The worker hears of it when it moves. */
  #stop(run: Run, by: Run['by']): void {
    const { process } = run.worker;
    const hear = (ms: number, work: () => void) =>
      this.#world.after(ms, () => within(process.surroundings, work), { process });
    hear(10, () => {
      if (run.stop.signal.aborted) return;
      run.by = by;
      run.stop.abort(new Error(by));
    });
    if (by === 'handover') hear(1_000, () => run.letGo.abort(new Error('let go')));
  }

  #retry(caller: Caller, run: Run, ms: number): void {
    if (caller.run !== run || caller.end !== undefined) return;
    if (caller.isCancelled) {
      caller.end = 'cancelled';
      return;
    }
    caller.run = undefined;
    caller.attempt += 1;
    this.#world.after(ms, () => this.#start(caller, run.tokensSeen));
  }

  #start(caller: Caller, seenBefore = 0): void {
    if (caller.end !== undefined || caller.run !== undefined) return;
    if (caller.isCancelled) {
      caller.end = 'cancelled';
      return;
    }
    const polling = this.#workers().filter(
      ({ process }) => !process.isDead && !process.isStopping && !this.#world.isFrozen(process),
    );
    if (polling.length === 0) {
      this.#world.after(RETRY_MS, () => this.#start(caller, seenBefore));
      return;
    }
    const worker = this.#world.random.pick(polling);
    const run: Run = {
      worker,
      visit: caller.visit,
      attempt: caller.attempt,
      stop: new AbortController(),
      letGo: new AbortController(),
      by: 'cancelled',
      tokensSeen: 0,
      isOver: false,
    };
    caller.run = run;
    const { callKey } = caller.plan;
    this.#world.note(
      () => `${worker.process.name} visits ${callKey} visit ${run.visit} attempt ${run.attempt}`,
    );
    const visited = within(worker.process.surroundings, () =>
      worker.calls.visit(toRequest(caller), {
        owner: ownerOf(run, callKey),
        signal: run.stop.signal,
        abortReason: () => run.by,
        abort: caller.plan.abort,
        letGo: run.letGo.signal,
        seenBefore,
        beat: (tokens) => {
          run.tokensSeen = tokens;
        },
      }),
    );
    visited.then(
      (outcome) => this.#onOutcome(caller, run, outcome),
      (error: unknown) => this.#onError(caller, run, error),
    );
  }

  /** Whether Temporal hears of the end: it may be of an attempt that it has given up, or be lost on its way. */
  #hears(caller: Caller, run: Run, end: string): boolean {
    run.isOver = true;
    this.#world.note(() => `${run.worker.process.name} ends ${caller.plan.callKey}: ${end}`);
    if (caller.run !== run || caller.end !== undefined) return false;
    if (!this.#world.random.chance(this.lostEnds)) return true;
    this.#world.note(() => 'nobody hears of it');
    this.#world.after(HEARTBEAT_TIMEOUT_MS, () => this.#retry(caller, run, 0));
    return false;
  }

  #finish(caller: Caller, run: Run, isWhole: boolean): void {
    const prefix = `${caller.plan.callKey}#0.${run.visit}.${run.attempt}.`;
    for (const request of this.#book.requests.values())
      if (request.attemptKey.startsWith(prefix) && request.process === run.worker.process) {
        request.isUnderWay = false;
        request.wasFinished = isWhole;
      }
  }

  #onOutcome(caller: Caller, run: Run, outcome: CallOutcome): void {
    this.#finish(caller, run, true);
    const { callKey } = caller.plan;
    if (outcome.kind === 'completed') {
      const result = this.#tables.results.get(callKey);
      this.#world.require(
        result?.status === 'completed' && formatUsd(result.nanoUsd) === outcome.costUsd,
        () => `${callKey} is told to cost ${outcome.costUsd}, and its result says ${result?.nanoUsd}`,
      );
    }
    if (!this.#hears(caller, run, outcome.kind)) return;
    switch (outcome.kind) {
      case 'held':
        caller.heldWaits += 1;
        caller.heldMs += outcome.ms;
        this.#visitAgain(caller, outcome.ms);
        break;
      case 'wait':
        if (outcome.reason === 'backpressure') caller.backpressureMs += outcome.ms;
        this.#visitAgain(caller, outcome.ms);
        break;
      case 'budget_wait':
        caller.turns += 1;
        if (caller.turns < MAX_TURNS) this.#visitAgain(caller, outcome.ms);
        else caller.end = 'waited';
        break;
      default:
        caller.end = outcome.kind;
    }
  }

  #visitAgain(caller: Caller, ms: number): void {
    caller.visit += 1;
    caller.attempt = 1;
    caller.run = undefined;
    this.#world.after(ms, () => this.#start(caller));
  }

  #onError(caller: Caller, run: Run, error: unknown): void {
    // Without Postgres, or handed over, a worker may leave its attempt to others.
    const gaveUp =
      (error instanceof StoreAway && error.store === 'postgres') ||
      (run.stop.signal.aborted && run.by === 'handover');
    this.#finish(caller, run, !gaveUp);
    const isKnown =
      error instanceof StoreAway ||
      error instanceof AttemptFailed ||
      error instanceof CallAborted ||
      error === run.stop.signal.reason ||
      (error instanceof Error && error.message.includes('times in a row'));
    if (!isKnown)
      this.#world.violated(`a visit failed: ${error instanceof Error ? error.stack : String(error)}`);
    if (!this.#hears(caller, run, String(error))) return;
    if (caller.isCancelled) caller.end = 'cancelled';
    else this.#retry(caller, run, RETRY_MS);
  }
}

function ownerOf(run: Run, callKey: string): string {
  return `activity ${callKey}/${run.visit}/${run.attempt}`;
}

function toRequest({ plan, visit, attempt, heldWaits, heldMs, backpressureMs }: Caller): CallRequest {
  return {
    callKey: plan.callKey,
    stepId: 'answer',
    payer: plan.payer,
    task: undefined,
    model: MODEL,
    number: { candidate: 0, visit, attempt },
    messages: [{ role: 'user', content: 'one two three four five six' }],
    maxOutputTokens: plan.maxOutputTokens,
    heldWaits,
    heldWaitOver: heldMs >= HELD_WAIT_MS,
    onExceeded: plan.onExceeded,
    backpressureMs,
    remainingMs: Number.POSITIVE_INFINITY,
  };
}
