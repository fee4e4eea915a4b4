// What is true in one run, kept beside the code under test and much simpler than it: who holds what, which requests reached the provider,
// what they took. And what must hold at each moment.

import type { GateHold, GateRefusal, HoldRequest } from '../../src/stores/gate.ts';
import type { BindingLimit, Payer } from '../../src/task/budget.ts';
import { scopesOf } from '../../src/task/budget.ts';
import { ALWAYS, type Interval } from '../../src/task/window.ts';
import type { OnScript } from './redis-in-world.ts';
import { isIn, type LedgerEntry, pays, type Tables } from './tables.ts';
import type { Process, World } from './world.ts';

type Hold = {
  readonly request: HoldRequest;
  readonly heldAtMs: number;
};

type Moment = { readonly atMs: number; readonly settled: readonly bigint[] };

/** One request in the provider's own log. */
export type ProviderRequest = {
  readonly attemptKey: string;
  readonly callKey: string;
  readonly process: Process;
  readonly sentAtMs: number;
  /** What it took, once its worker was told in full; a request whose worker never knew has none. */
  told: bigint | undefined;
  /** Its worker is still at it. */
  isUnderWay: boolean;
  /** Its worker lived to the end of the visit, and had every reason to book what it knew. */
  wasFinished: boolean;
};

const HOUR_MS = 3_600_000;
const DAY_MS = 86_400_000;

/** The runs know hours and days in UTC only, so that this is all there is to windows. */
export function intervalAt({ window }: Pick<BindingLimit, 'window'>, atMs: number): Interval {
  if (window === 'total') return ALWAYS;
  const length = window === 'hour' ? HOUR_MS : DAY_MS;
  const startMs = Math.floor(atMs / length) * length;
  return { startMs, endMs: startMs + length };
}

export class Book {
  readonly requests = new Map<string, ProviderRequest>();
  readonly #world: World;
  readonly #tables: Tables;
  readonly #leaseMs: number;
  /** By attempt; one that does not fit is asked for again, smaller. */
  readonly #asked = new Map<string, HoldRequest[]>();
  /** When Redis was asked for an attempt's hold, and what was true then. */
  readonly #moments = new Map<string, Moment[]>();
  readonly #holds = new Map<string, Hold>();
  readonly #marks = new Map<string, number>();
  readonly #givenUp = new Set<string>();
  #wasSetBack = false;
  /** When an attempt's worker last proved in Redis that it lives. */
  readonly #proofs = new Map<string, number>();

  constructor(world: World, tables: Tables, leaseMs: number) {
    this.#world = world;
    this.#tables = tables;
    this.#leaseMs = leaseMs;
  }

  /** An attempt wants to be held; `hold` asks Redis. */
  async holds(request: HoldRequest, hold: () => Promise<GateHold>): Promise<GateHold> {
    const { attemptKey } = request;
    this.#asked.set(attemptKey, [request, ...(this.#asked.get(attemptKey) ?? [])]);
    this.#moments.set(attemptKey, []);
    const answer = await hold();
    if (answer.kind === 'ok') this.#holds.set(attemptKey, { request, heldAtMs: answer.heldAtMs });
    if (answer.kind === 'refused') this.#checkRefusal(request, answer);
    if (answer.kind === 'crowded') this.#checkCrowd(request, answer);
    return answer;
  }

  /** Redis lost everything, leases included. */
  forgetsRedis(isSnapshot: boolean): void {
    // What came back with a snapshot is anybody's guess.
    if (!isSnapshot) return;
    this.#proofs.clear();
    this.#wasSetBack = true;
  }

  readonly onScript: OnScript = (name, args, answer, process) => {
    const attemptKey = args[0] ?? '';
    switch (name) {
      case 'hold':
        this.#moments.get(attemptKey)?.push(this.#momentOf(attemptKey));
        break;
      case 'mark-sent':
      case 'renew':
        if (answer === 1) this.#onProof(name, attemptKey, process);
        break;
      case 'take':
        if (Array.isArray(answer) && answer[0] === 'SENT') this.#onGivenUp(attemptKey);
        break;
      case 'adjust':
        for (const entry of this.#tables.entries) if (entry.kind === 'adjust') this.#markTold(entry, args);
        break;
      default:
    }
  };

  #onProof(name: 'mark-sent' | 'renew', attemptKey: string, process: Process): void {
    const { nowMs } = this.#world;
    if (name === 'mark-sent') this.#marks.set(attemptKey, nowMs);
    if (!process.isDead && !this.#givenUp.has(attemptKey)) this.#proofs.set(attemptKey, nowMs);
  }

  /** Somebody decides that a sent attempt is lost; what its worker shows from now on comes too late. */
  #onGivenUp(attemptKey: string): void {
    const proof = this.#proofs.get(attemptKey);
    this.#world.require(
      proof === undefined || proof + this.#leaseMs <= this.#world.nowMs,
      () => `${attemptKey} was given up although it had shown life in time`,
    );
    const request = this.requests.get(attemptKey);
    this.#world.require(
      this.#world.isDisturbed || request?.isUnderWay !== true || request.process.isDead,
      () => `${attemptKey} was given up although nothing kept its worker from showing life`,
    );
    this.#proofs.delete(attemptKey);
    this.#givenUp.add(attemptKey);
  }

  #markTold(entry: LedgerEntry, args: readonly string[]): void {
    // The script names its attempt only in its keys; the moment of the hold is enough to find it.
    if (args.includes(String(entry.attempt.heldAt.getTime()))) entry.isTold = true;
  }

  /** What the ledger said of an attempt's limits when Redis was asked. */
  #momentOf(attemptKey: string): Moment {
    const [request] = this.#asked.get(attemptKey) ?? [];
    const atMs = this.#world.nowMs;
    // A correction downwards that Redis was not told of yet does not count.
    const isSeen = ({ charge, isTold }: LedgerEntry) => isTold || charge.nanoUsd >= 0n;
    const settled = (request?.limits ?? []).map((limit) =>
      this.#settled(limit, intervalAt(limit, atMs), isSeen),
    );
    return { atMs, settled };
  }

  /** Nobody is refused while what is settled leaves room. */
  #checkRefusal(request: HoldRequest, refusal: GateRefusal): void {
    const { limit, interval } = refusal;
    const needed = neededOf(request, limit);
    const isRight = ({ atMs, settled }: Moment) =>
      interval.startMs === intervalAt(limit, atMs).startMs &&
      ((settled[request.limits.indexOf(limit)] ?? 0n) + needed > limit.amount || limit.amount === 0n);
    this.#world.require(
      (this.#moments.get(request.attemptKey) ?? []).some(isRight),
      () =>
        `false refusal of ${request.attemptKey}: ${show(limit)}, which has ${limit.amount - refusal.settled} left in ${interval.startMs}`,
    );
  }

  /** Only holds that somebody wanted stand in the way, each of them once. */
  #checkCrowd(request: HoldRequest, { limit, settled, held }: GateRefusal): void {
    let wanted = 0n;
    for (const others of this.#asked.values()) {
      const amounts = others
        .filter(({ payer }) => pays(payer, limit.scope))
        .map((other) => neededOf(other, limit));
      wanted += amounts.reduce((most, amount) => (amount > most ? amount : most), 0n);
    }
    this.#world.require(
      held <= wanted,
      () => `more is held on ${show(limit)} than anybody wanted: ${held} of ${wanted}`,
    );
    const known = (this.#moments.get(request.attemptKey) ?? []).map(
      (moment) => moment.settled[request.limits.indexOf(limit)],
    );
    this.#world.require(
      known.some((sum) => sum !== undefined && settled <= sum),
      () => `more is settled on ${show(limit)} than the ledger has: ${settled} of ${known}`,
    );
  }

  #settled(limit: BindingLimit, interval: Interval, isWanted: (entry: LedgerEntry) => boolean): bigint {
    const { nanoUsd, tokens } = this.#tables.settled(limit.scope, interval, isWanted);
    return limit.unit === 'usd' ? nanoUsd : tokens;
  }

  /** A request reaches the provider. */
  sends(process: Process, attemptKey: string, sent: { maxOutputTokens: number; issuedAtMs: number }): void {
    const world = this.#world;
    const row = this.#tables.attempts.get(attemptKey);
    const hold = this.#holds.get(attemptKey);
    world.require(!this.requests.has(attemptKey), () => `${attemptKey} was sent twice`);
    if (row === undefined || hold === undefined) {
      world.violated(`${attemptKey} was sent without a hold and a row`);
      return;
    }
    const { attempt } = row;
    world.require(row.state !== 'voided', () => `${attemptKey} was sent although it is void`);
    world.require(
      sent.maxOutputTokens <= attempt.estimate.maxOutputTokens &&
        attempt.estimate.nanoUsd <= hold.request.estimate.nanoUsd,
      () => `${attemptKey} was sent for more than it holds`,
    );
    world.require(
      attempt.heldAt.getTime() === hold.heldAtMs,
      () => `${attemptKey} was held at ${hold.heldAtMs} and says ${attempt.heldAt.getTime()}`,
    );
    if (row.state === 'started') this.#checkPredecessors(attempt.callKey, attemptKey);
    // A worker that was too slow may have written its request just before somebody gave it up, never after that.
    else
      world.require(
        sent.issuedAtMs <= row.endedAtMs || this.#wasSetBack,
        () => `${attemptKey} was sent although it was ${row.state} by ${row.endedBy}`,
      );
    this.requests.set(attemptKey, {
      attemptKey,
      callKey: attempt.callKey,
      process,
      sentAtMs: world.nowMs,
      told: undefined,
      isUnderWay: true,
      wasFinished: false,
    });
    for (const limit of hold.request.limits) if (limit.hard) this.#checkLimit(limit, hold);
  }

  /** No other attempt of the call is under way whose worker lives and showed it in time. */
  #checkPredecessors(callKey: string, attemptKey: string): void {
    for (const other of this.requests.values()) {
      const row = this.#tables.attempts.get(other.attemptKey);
      if (other.callKey !== callKey || !other.isUnderWay || other.process.isDead || row === undefined)
        continue;
      const isOwnEnd = row.state !== 'started' && row.endedBy === other.process.name;
      const proof = this.#proofs.get(other.attemptKey);
      if (isOwnEnd || proof === undefined || this.#world.isFrozen(other.process)) continue;
      this.#world.require(
        proof + this.#leaseMs <= this.#world.nowMs,
        () => `${attemptKey} was sent while ${other.attemptKey} is alive`,
      );
    }
  }

  /** What was spent and what is under way, together, in the window of the hold. */
  #checkLimit(limit: BindingLimit, hold: Hold): void {
    const interval = intervalAt(limit, hold.heldAtMs);
    const markedAtMs = this.#marks.get(hold.request.attemptKey) ?? 0;
    // What turned out dearer than its estimate after this hold was made could not be known to it.
    const spent = this.#settled(limit, interval, ({ kind, charge, atMs, isTold, attempt }) =>
      kind === 'adjust'
        ? charge.nanoUsd < 0n || (isTold && atMs < hold.heldAtMs)
        : // Nor what was booked since the mark for an attempt that was never sent.
          kind !== 'estimate' || this.requests.has(attempt.attemptKey) || atMs < markedAtMs,
    );
    let underWay = 0n;
    for (const { attempt, state } of this.#tables.attempts.values())
      if (
        state === 'started' &&
        this.requests.has(attempt.attemptKey) &&
        isIn(attempt, limit.scope, interval)
      )
        underWay += neededOf(attempt, limit);
    this.#world.require(
      spent + underWay <= this.#largestAmount(limit, interval),
      () => `${show(limit)} is passed by ${hold.request.attemptKey}: settled ${spent}, under way ${underWay}`,
    );
  }

  /** A limit that was raised since may have let others in. */
  #largestAmount(limit: BindingLimit, { startMs, endMs }: Interval): bigint {
    const present = [...this.#holds.values()].filter(
      ({ heldAtMs }) => heldAtMs >= startMs && heldAtMs < endMs,
    );
    return present
      .flatMap(({ request }) => request.limits)
      .filter(
        ({ scope, unit, window }) =>
          scope.kind === limit.scope.kind &&
          scope.id === limit.scope.id &&
          unit === limit.unit &&
          window === limit.window,
      )
      .reduce((most, { amount }) => (amount > most ? amount : most), limit.amount);
  }

  /** What must hold of the ledger once all is quiet. */
  checkLedger(): void {
    const billable = new Map<string, number>();
    for (const entry of this.#tables.entries)
      if (entry.billable) billable.set(entry.attempt.callKey, 1 + (billable.get(entry.attempt.callKey) ?? 0));
    for (const [callKey, count] of billable)
      this.#world.require(count === 1, () => `${callKey} has ${count} billable rows`);
    for (const request of this.requests.values()) this.#checkBooked(request);
    for (const { attempt, state } of this.#tables.attempts.values())
      this.#world.require(state !== 'started', () => `${attempt.attemptKey} is started for ever`);
    for (const result of this.#tables.results.values()) {
      const row = this.#tables.entries.find(
        ({ attempt, billable: paid }) => attempt.attemptKey === result.attemptKey && paid,
      );
      this.#world.require(
        row?.charge.nanoUsd === result.nanoUsd,
        () => `the result of ${result.callKey} does not cost what its row says`,
      );
    }
  }

  /** A request has exactly one charge or estimate, and in the end what it took, where its worker lived to tell. */
  #checkBooked({ attemptKey, told, wasFinished }: ProviderRequest): void {
    const own = this.#tables.entries.filter(({ attempt }) => attempt.attemptKey === attemptKey);
    const kinds = own.map(({ kind }) => kind);
    this.#world.require(
      kinds.filter((kind) => kind === 'charge' || kind === 'estimate').length === 1 &&
        !kinds.includes('void'),
      () => `the request of ${attemptKey} is booked as ${kinds.join(', ') || 'nothing'}`,
    );
    const booked = own.reduce((sum, { charge }) => sum + charge.nanoUsd, 0n);
    this.#world.require(
      !wasFinished || told === undefined || told === booked,
      () => `${attemptKey} took ${told}, its worker lived to tell, and ${booked} is booked`,
    );
  }
}

function neededOf({ estimate }: Pick<HoldRequest, 'estimate'>, { unit }: Pick<BindingLimit, 'unit'>): bigint {
  return unit === 'usd' ? estimate.nanoUsd : BigInt(estimate.tokens);
}

export function show({ scope, unit, window, amount }: BindingLimit): string {
  return `${unit} per ${window} of ${scope.kind} ${scope.id} (${amount})`;
}

/** All scopes that anybody pays from. */
export function allScopes(payers: readonly Payer[]) {
  const known = new Map(payers.flatMap(scopesOf).map((scope) => [`${scope.kind} ${scope.id}`, scope]));
  return [...known.values()];
}
