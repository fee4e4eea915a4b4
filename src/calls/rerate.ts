// Brings what was booked to the present price list: for prices that were wrong, or not known when calls were made. The ledger is
// append-only, so that each difference becomes a row of its own; the counters of budgets follow.

import type { BookedAttempt, RerateFilter, ReratePlace, RerateRows } from '../stores/rerate-rows.ts';
import type { Payer } from '../task/budget.ts';
import { costNanoUsd, priceAt } from '../task/price.ts';
import type { CallDependencies } from './call.ts';
import { toEstimate } from './estimate.ts';

export type RerateRequest = RerateFilter & {
  /** Where an earlier answer stopped. */
  readonly after?: ReratePlace | undefined;
  /** Tells what would be booked, and books nothing. */
  readonly dryRun: boolean;
  /** Most attempts to look at before answering. */
  readonly limit: number;
};

export type RerateReport = {
  /** Of the price list that was applied. */
  readonly priceHash: string;
  /** Attempts that were looked at. */
  readonly attempts: number;
  /** Attempts that cost another amount now. */
  readonly adjusted: number;
  readonly differenceNanoUsd: bigint;
  readonly models: ReadonlyMap<string, { readonly adjusted: number; readonly differenceNanoUsd: bigint }>;
  /** Attempts per model of which the list does not say what they cost: they stay as they are. */
  readonly unknown: ReadonlyMap<string, number>;
  /**
   * Attempts that were re-rated with this very list before and differ from it again, since another list was applied in between: one
   * list is applied once.
   */
  readonly appliedBefore: number;
  /** Where to go on; undefined when the period is done. */
  readonly next: ReratePlace | undefined;
};

export type RerateDependencies = Pick<CallDependencies, 'catalog' | 'log'> & {
  readonly gate: Pick<CallDependencies['gate'], 'scopeVersions' | 'adjust'>;
  readonly ledger: Pick<CallDependencies['ledger'], 'gate'>;
  readonly rerateRows: RerateRows;
};

const BATCH = 500;

/** Goes through a period in batches, each committed by itself. Safe to repeat and to run twice at once. */
export async function rerate(
  dependencies: RerateDependencies,
  request: RerateRequest,
): Promise<RerateReport> {
  const { priceHash } = dependencies.catalog;
  const tally = createTally();
  let after = request.after;
  for (let left = request.limit; ; ) {
    const limit = Math.min(BATCH, left);
    const found = await dependencies.rerateRows.find(request, priceHash, { after, limit });
    const due = found.filter((attempt) => tally.look(attempt, targetCost(dependencies, attempt)));
    if (request.dryRun)
      for (const attempt of due)
        tally.adjust(attempt, (targetCost(dependencies, attempt) ?? 0n) - attempt.nanoUsd);
    else if (due.length > 0) await book(dependencies, due, tally.adjust);
    after = found.at(-1) ?? after;
    left -= found.length;
    if (found.length < limit) return tally.report(priceHash, undefined);
    if (left <= 0) return tally.report(priceHash, after);
  }
}

/** What an attempt costs by the present list, at the moment of its hold. Undefined: the list does not say. */
function targetCost({ catalog }: RerateDependencies, attempt: BookedAttempt): bigint | undefined {
  // Booked with this very list: what it was booked at is right.
  if (attempt.priceHash === catalog.priceHash && !attempt.isRerated) return attempt.nanoUsd;
  const price = priceAt(catalog.modelOf(attempt.model)?.prices ?? [], attempt.heldAt.getTime());
  if (price === undefined) return undefined;
  const { usage } = attempt;
  return attempt.isHold
    ? toEstimate(price, usage.inputTokens, usage.outputTokens).nanoUsd
    : costNanoUsd(price, usage);
}

async function book(
  dependencies: RerateDependencies,
  due: readonly BookedAttempt[],
  note: (attempt: BookedAttempt, difference: bigint) => void,
): Promise<void> {
  const { gate, rerateRows, catalog } = dependencies;
  // Read before the commit: a counter that is rebuilt in between has the rows already.
  const counters = await readCounters(dependencies, due);
  const rerated = await rerateRows.book(due, catalog.priceHash, (attempt) =>
    targetCost(dependencies, attempt),
  );
  for (const attempt of rerated) {
    note(attempt, attempt.difference);
    const counter = counters.get(payerKey(attempt.payer));
    if (counter === undefined) continue;
    try {
      await gate.adjust(attempt, counter.generation, {
        adjustKey: `rerate:${catalog.priceHash}`,
        nanoUsd: attempt.difference,
        tokens: 0,
        scopeVersions: counter.scopeVersions,
      });
    } catch (error) {
      // The row is booked; the reaper tells the counters of adjustments that never reached them.
      dependencies.log.warn('a re-rating did not reach the counters', { attempt: attempt.attemptKey, error });
    }
  }
}

type Counter = { readonly generation: bigint; readonly scopeVersions: readonly string[] };

async function readCounters(
  { gate, ledger }: RerateDependencies,
  attempts: readonly BookedAttempt[],
): Promise<ReadonlyMap<string, Counter>> {
  const counters = new Map<string, Counter>();
  for (const { payer } of attempts) {
    const key = payerKey(payer);
    if (counters.has(key)) continue;
    const { generation } = await ledger.gate(payer.tenantId);
    counters.set(key, { generation, scopeVersions: await gate.scopeVersions(payer, generation) });
  }
  return counters;
}

function payerKey({ tenantId, userId, sessionId, taskId, shareId }: Payer): string {
  return JSON.stringify([tenantId, userId, sessionId, taskId, shareId]);
}

function createTally() {
  let [attempts, adjusted, appliedBefore, differenceNanoUsd] = [0, 0, 0, 0n];
  const models = new Map<string, { adjusted: number; differenceNanoUsd: bigint }>();
  const unknown = new Map<string, number>();
  return {
    /** Counts an attempt; answers whether it is to be adjusted. */
    look(attempt: BookedAttempt, cost: bigint | undefined): boolean {
      attempts += 1;
      if (cost === undefined) {
        unknown.set(attempt.model, (unknown.get(attempt.model) ?? 0) + 1);
        return false;
      }
      if (cost === attempt.nanoUsd) return false;
      if (attempt.isApplied) appliedBefore += 1;
      return !attempt.isApplied;
    },
    adjust({ model }: BookedAttempt, difference: bigint): void {
      adjusted += 1;
      differenceNanoUsd += difference;
      const of = models.get(model) ?? { adjusted: 0, differenceNanoUsd: 0n };
      models.set(model, {
        adjusted: of.adjusted + 1,
        differenceNanoUsd: of.differenceNanoUsd + difference,
      });
    },
    report: (priceHash: string, next: ReratePlace | undefined): RerateReport => ({
      ...{ priceHash, attempts, adjusted, differenceNanoUsd, models, unknown, appliedBefore },
      next: next === undefined ? undefined : { heldAt: next.heldAt, attemptKey: next.attemptKey },
    }),
  };
}
