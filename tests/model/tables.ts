// Postgres as one run sees it: the same conditional steps as stores/ledger.ts, on plain maps. Each is atomic, as its transaction is; the
// insert of an intent looks before it writes, as a statement under READ COMMITTED does.

import type {
  Attempt,
  AttemptOutcome,
  AttemptState,
  CallResult,
  Caused,
  Charge,
  Ledger,
  Resolution,
  TenantGate,
} from '../../src/stores/ledger.ts';
import type { Limits } from '../../src/stores/limits.ts';
import type { PostgresGate } from '../../src/stores/postgres-gate.ts';
import type { ScopeSums } from '../../src/stores/scope-sums.ts';
import { type BindingLimit, type Limit, type Payer, type Scope, scopesOf } from '../../src/task/budget.ts';
import { NO_USAGE, totalTokens, type Usage } from '../../src/task/usage.ts';
import type { Interval } from '../../src/task/window.ts';
import type { Process, World } from './world.ts';

type AttemptRow = {
  readonly attempt: Attempt;
  state: AttemptState;
  outcome: AttemptOutcome | undefined;
  /** Who ended it. */
  endedBy: string | undefined;
  endedAtMs: number;
};

export type LedgerEntry = {
  readonly attempt: Attempt;
  readonly kind: 'charge' | 'estimate' | 'adjust' | 'void';
  readonly adjustKey: string;
  readonly charge: Charge;
  readonly billable: boolean;
  readonly atMs: number;
  /** Whether Redis was told of an adjustment. */
  isTold: boolean;
};

export type Sums = { readonly nanoUsd: bigint; readonly tokens: bigint };

export class Tables {
  readonly gates = new Map<string, TenantGate>();
  readonly attempts = new Map<string, AttemptRow>();
  readonly entries: LedgerEntry[] = [];
  readonly results = new Map<string, CallResult>();
  /** By kind and id of the scope. */
  readonly limits = new Map<string, readonly Limit[]>();
  readonly #nowMs: () => number;

  constructor(nowMs: () => number) {
    this.#nowMs = nowMs;
  }

  limitsOf(payer: Payer): readonly BindingLimit[] {
    return scopesOf(payer).flatMap((scope) =>
      (this.limits.get(`${scope.kind} ${scope.id}`) ?? []).map((limit) => ({ ...limit, scope })),
    );
  }

  gate(tenantId: string): TenantGate {
    const gate = this.gates.get(tenantId) ?? { mode: 'redis', generation: 1n };
    this.gates.set(tenantId, gate);
    return gate;
  }

  /** What the statement of an intent finds when it starts. */
  lookForIntent({ attemptKey, callKey }: Attempt): boolean {
    const others = [...this.attempts.values()].filter(
      ({ attempt, state }) =>
        attempt.callKey === callKey && state === 'started' && attempt.attemptKey !== attemptKey,
    );
    return !this.results.has(callKey) && others.length === 0;
  }

  insertIntent(attempt: Attempt, wasFree: boolean): boolean {
    const gate = this.gates.get(attempt.payer.tenantId);
    const known = this.attempts.get(attempt.attemptKey);
    if (known !== undefined || !wasFree || gate?.mode !== 'redis' || gate.generation !== attempt.generation)
      return known?.state === 'started';
    this.attempts.set(attempt.attemptKey, {
      attempt,
      state: 'started',
      outcome: undefined,
      endedBy: undefined,
      endedAtMs: 0,
    });
    return true;
  }

  settle(
    attempt: Attempt,
    end: {
      outcome: AttemptOutcome;
      charge: Charge;
      result?: Pick<CallResult, 'status' | 'text' | 'finishReason'>;
    },
    by: string,
  ): 'settled' | 'fenced' {
    if (!this.#leave(attempt, 'settled', end.outcome, by))
      return this.attempts.get(attempt.attemptKey)?.state === 'settled' ? 'settled' : 'fenced';
    const { charge, result } = end;
    const billable = result !== undefined && !this.results.has(attempt.callKey);
    if (billable)
      this.results.set(attempt.callKey, {
        callKey: attempt.callKey,
        attemptKey: attempt.attemptKey,
        ...result,
        model: attempt.model,
        usage: charge.usage,
        nanoUsd: charge.nanoUsd,
        maxOutputTokens: attempt.estimate.maxOutputTokens,
      });
    this.#insert(attempt, { kind: 'charge', adjustKey: '', charge, billable });
    return 'settled';
  }

  resolve(attempt: Attempt, { to, outcome, charge }: Resolution, by: string): boolean {
    if (!this.#leave(attempt, to, outcome, by)) return false;
    const kind = to === 'voided' ? 'void' : 'estimate';
    this.#insert(attempt, { kind, adjustKey: '', charge, billable: false });
    return true;
  }

  adjustLate(attempt: Attempt, charge: Charge): Charge | undefined {
    const booked = this.charged(attempt, true);
    const difference: Charge = {
      nanoUsd: charge.nanoUsd - booked.nanoUsd,
      source: charge.source,
      usage: combine(charge.usage, booked.usage, -1),
    };
    return this.#insert(attempt, { kind: 'adjust', adjustKey: 'late', charge: difference, billable: false })
      ? difference
      : undefined;
  }

  charged({ attemptKey }: Pick<Attempt, 'attemptKey'>, withAdjustments: boolean): Charge {
    const own = this.entries.filter(
      ({ attempt, kind }) => attempt.attemptKey === attemptKey && (withAdjustments || kind !== 'adjust'),
    );
    return {
      nanoUsd: own.reduce((sum, { charge }) => sum + charge.nanoUsd, 0n),
      usage: own.reduce((sum, { charge }) => combine(sum, charge.usage, 1), NO_USAGE),
      source: 'none',
    };
  }

  started(isWanted: (attempt: Attempt) => boolean): readonly Attempt[] {
    return [...this.attempts.values()]
      .filter(({ attempt, state }) => state === 'started' && isWanted(attempt))
      .map(({ attempt }) => attempt)
      .toSorted((left, right) => left.heldAt.getTime() - right.heldAt.getTime());
  }

  /** What the ledger holds of a scope in an interval, of those rows that are wanted. */
  settled(scope: Scope, interval: Interval, isWanted: (entry: LedgerEntry) => boolean = () => true): Sums {
    const own = this.entries.filter((entry) => isIn(entry.attempt, scope, interval) && isWanted(entry));
    return {
      nanoUsd: own.reduce((sum, { charge }) => sum + charge.nanoUsd, 0n),
      tokens: own.reduce((sum, { charge }) => sum + BigInt(totalTokens(charge.usage)), 0n),
    };
  }

  sums(scope: Scope, intervals: readonly Interval[]): ScopeSums {
    const started = this.started(({ payer }) => pays(payer, scope));
    return {
      settled: intervals.map((interval) => this.settled(scope, interval)),
      started: started.map((attempt) => ({
        key: attempt.attemptKey,
        call: attempt.callKey,
        nano: attempt.estimate.nanoUsd.toString(),
        tokens: attempt.estimate.tokens.toString(),
        owner: attempt.owner,
        generation: attempt.generation.toString(),
        heldAt: attempt.heldAt.getTime().toString(),
        scopes: scopesOf(attempt.payer).map(({ kind, id }) => [kind, id] as const),
      })),
    };
  }

  #leave(attempt: Attempt, to: AttemptState, outcome: AttemptOutcome, by: string): boolean {
    const row = this.attempts.get(attempt.attemptKey);
    if (row?.state !== 'started') return false;
    row.state = to;
    row.outcome = outcome;
    row.endedBy = by;
    row.endedAtMs = this.#nowMs();
    return true;
  }

  #insert(attempt: Attempt, row: Pick<LedgerEntry, 'kind' | 'adjustKey' | 'charge' | 'billable'>): boolean {
    const isThere = this.entries.some(
      (entry) =>
        entry.attempt.attemptKey === attempt.attemptKey &&
        entry.kind === row.kind &&
        entry.adjustKey === row.adjustKey,
    );
    if (isThere) return false;
    this.entries.push({ attempt, ...row, atMs: this.#nowMs(), isTold: false });
    return true;
  }
}

export function pays(payer: Payer, scope: Scope): boolean {
  return scopesOf(payer).some(({ kind, id }) => kind === scope.kind && id === scope.id);
}

/** By the moment of the hold, whenever it was settled. */
export function isIn({ payer, heldAt }: Attempt, scope: Scope, { startMs, endMs }: Interval): boolean {
  return pays(payer, scope) && heldAt.getTime() >= startMs && heldAt.getTime() < endMs;
}

function combine(left: Usage, right: Usage, sign: 1 | -1): Usage {
  return {
    inputTokens: left.inputTokens + sign * right.inputTokens,
    cacheReadTokens: left.cacheReadTokens + sign * right.cacheReadTokens,
    cacheWrite5mTokens: left.cacheWrite5mTokens + sign * right.cacheWrite5mTokens,
    cacheWrite1hTokens: left.cacheWrite1hTokens + sign * right.cacheWrite1hTokens,
    outputTokens: left.outputTokens + sign * right.outputTokens,
    reasoningTokens: left.reasoningTokens + sign * right.reasoningTokens,
  };
}

/** The ledger as a process sees it: each method is one command to Postgres. */
export function ledgerOf(world: World, tables: Tables, process: Process): Ledger {
  const ask = <Result>(what: string, ...stages: (() => unknown)[]) =>
    world.op(process, 'postgres', what, ...stages) as Promise<Result>;
  const ledger = {
    gate: (tenantId) => ask('gate', () => tables.gate(tenantId)),
    intent: (attempt: Attempt, _caused: Caused | undefined) => {
      let wasFree = false;
      return ask(
        `intent ${attempt.attemptKey}`,
        () => {
          wasFree = tables.lookForIntent(attempt);
        },
        () => tables.insertIntent(attempt, wasFree),
      );
    },
    settle: (attempt, end) =>
      ask(`settle ${attempt.attemptKey}`, () => tables.settle(attempt, end, process.name)),
    resolve: (attempt, resolution) =>
      ask(`resolve ${attempt.attemptKey} ${resolution.to}`, () =>
        tables.resolve(attempt, resolution, process.name),
      ),
    adjustLate: (attempt, charge) =>
      ask(`adjustLate ${attempt.attemptKey}`, () => tables.adjustLate(attempt, charge)),
    recentAdjustments: (minAgeMs, maxAgeMs) =>
      ask('recentAdjustments', () =>
        tables.entries
          .filter(({ kind, atMs }) => {
            const age = world.nowMs - atMs;
            return kind === 'adjust' && age > minAgeMs && age < maxAgeMs;
          })
          .map(({ attempt: { attemptKey, heldAt, payer }, adjustKey }) => ({
            attemptKey,
            heldAt,
            payer,
            adjustKey,
          })),
      ),
    state: ({ attemptKey }) => ask(`state ${attemptKey}`, () => tables.attempts.get(attemptKey)?.state),
    charged: (attempt) => ask(`charged ${attempt.attemptKey}`, () => tables.charged(attempt, false)),
    result: (callKey) => ask(`result ${callKey}`, () => tables.results.get(callKey)),
    startedOfCall: (callKey) =>
      ask(`startedOfCall ${callKey}`, () => tables.started((attempt) => attempt.callKey === callKey)),
    startedOfTenant: (tenantId) =>
      ask('startedOfTenant', () => tables.started(({ payer }) => payer.tenantId === tenantId)),
    attempt: (attemptKey) =>
      ask(`attempt ${attemptKey}`, () => {
        const row = tables.attempts.get(attemptKey);
        return row === undefined ? undefined : { ...row.attempt, state: row.state };
      }),
    failures: (callKey) => ask(`failures ${callKey}`, () => failuresOf(tables, callKey)),
    medianOutputTokens: () => ask('medianOutputTokens', () => undefined),
    tenants: () => ask('tenants', () => [...tables.gates.keys()]),
  } satisfies Partial<Ledger>;
  // What is missing is not a part of a call or of the reaper; it would be a TypeError, which ends a run.
  return ledger as unknown as Ledger;
}

function failuresOf(tables: Tables, callKey: string) {
  const own = [...tables.attempts.values()].filter(({ attempt }) => attempt.callKey === callKey);
  const count = (wanted: AttemptOutcome) => own.filter(({ outcome }) => outcome === wanted).length;
  return own.length === 0 ? [] : [{ candidate: 0, failed: count('failed'), throttled: count('throttled') }];
}

/** Limits as a process sees them. */
export function limitsOf(world: World, tables: Tables, process: Process): Limits {
  const limits = {
    binding: (payer: Payer) =>
      world.op(process, 'postgres', 'binding', () => tables.limitsOf(payer)) as Promise<
        readonly BindingLimit[]
      >,
    noteRefusal: () => world.op(process, 'postgres', 'noteRefusal', () => undefined) as Promise<void>,
  } satisfies Partial<Limits>;
  return limits as unknown as Limits; // as above
}

/** What the gate in Postgres has of attempts that Redis holds: their rows, renewed where Redis does not answer. */
export function rowsOf(world: World, tables: Tables, process: Process): PostgresGate {
  const rows = {
    renew: ({ attemptKey }) =>
      world.op(
        process,
        'postgres',
        `renew row ${attemptKey}`,
        () => tables.attempts.get(attemptKey)?.state === 'started',
      ) as Promise<boolean>,
    expiredLeases: async () => [],
  } satisfies Partial<PostgresGate>;
  return rows as unknown as PostgresGate; // as above
}
