// The oracle of charging: the ledger next to the provider's own log. It knows nothing of how a call is charged, only what must come out:
// one charge or estimate for each request, each charge the request's usage at its price, nothing else.

import type { LedgerRow } from '../../src/stores/accounts.ts';
import { costNanoUsd, type PriceEntry, priceAt } from '../../src/task/price.ts';
import type { LoggedRequest } from '../simulated-provider/request-log.ts';

export type Comparison = {
  readonly requests: number;
  readonly charges: number;
  readonly estimates: number;
  readonly voids: number;
  /** Differences booked for attempts that had been estimated while their worker was away. */
  readonly adjustments: number;
  /** Rows that a user pays for. */
  readonly billable: number;
  /** One sentence for each thing that does not add up. */
  readonly faults: readonly string[];
};

export type CompareOptions = {
  readonly requests: readonly LoggedRequest[];
  readonly rows: readonly LedgerRow[];
  readonly pricesOf: (model: string) => readonly PriceEntry[];
  /** Attempts whose worker was killed: only they may be estimated. */
  readonly mayBeEstimated: (attemptKey: string) => boolean;
  /** Rows that may be there although no request of theirs arrived; without it there are none. */
  readonly mayBeUnsent?: (row: LedgerRow) => boolean;
  /** Tasks that were answered, of one call each: their user pays for exactly one attempt. */
  readonly answeredTasks?: readonly string[];
};

/** Compares every request that carried an attempt key with the ledger's rows. */
export function compareCharges(options: CompareOptions): Comparison {
  const { requests, rows } = options;
  const booked = new Map<string, LedgerRow[]>();
  for (const row of rows) booked.set(row.attemptKey, [...(booked.get(row.attemptKey) ?? []), row]);
  const logged = new Map<string, LoggedRequest[]>();
  for (const request of requests)
    if (request.attemptKey !== null)
      logged.set(request.attemptKey, [...(logged.get(request.attemptKey) ?? []), request]);

  const faults: string[] = [];
  for (const [attemptKey, sent] of logged)
    faults.push(...requestFaults(options, attemptKey, sent, booked.get(attemptKey) ?? []));
  for (const row of rows)
    if (isCharge(row) && !logged.has(row.attemptKey) && options.mayBeUnsent?.(row) !== true)
      faults.push(`${row.attemptKey}: a row of kind ${row.kind} without a request`);
  faults.push(...billableFaults(rows));
  for (const taskId of options.answeredTasks ?? [])
    if (!rows.some((row) => row.taskId === taskId && row.billable))
      faults.push(`${taskId}: answered, and billed to nobody`);
  const count = (kind: LedgerRow['kind']) => rows.filter((row) => row.kind === kind).length;
  return {
    requests: logged.size,
    charges: count('charge'),
    estimates: count('estimate'),
    voids: count('void'),
    adjustments: count('adjust'),
    billable: rows.filter((row) => row.billable).length,
    faults,
  };
}

function requestFaults(
  options: CompareOptions,
  attemptKey: string,
  sent: readonly LoggedRequest[],
  rows: readonly LedgerRow[],
): string[] {
  const faults: string[] = [];
  if (sent.length > 1) faults.push(`${attemptKey}: sent ${sent.length} times`);
  const charged = rows.filter(isCharge);
  if (charged.length !== 1)
    faults.push(`${attemptKey}: ${charged.length} charges and estimates for one request`);
  const [row] = charged;
  const [request] = sent;
  if (row === undefined || request === undefined) return faults;
  if (row.kind === 'estimate' && !options.mayBeEstimated(attemptKey))
    faults.push(`${attemptKey}: estimated, but its worker lived`);
  const late = rows.find((one) => one.kind === 'adjust' && one.adjustKey === 'late');
  if (late !== undefined && row.kind !== 'estimate')
    faults.push(`${attemptKey}: corrected although it was not estimated`);
  // The last word on what the attempt took, where that was the provider's own count.
  if ((late ?? row).usageSource === 'measured') {
    const due = dueNanoUsd(options, row.model, request);
    const booked = row.nanoUsd + (late?.nanoUsd ?? 0n);
    if (due !== booked) faults.push(`${attemptKey}: charged ${booked} nano-USD, the request took ${due}`);
  }
  return faults;
}

/**
 * What is booked for an attempt that was ended when its request was on its way and nothing had come back: nobody knows whether the
 * provider saw it, so the platform, never the user, is charged its input.
 */
export function isUnheard({ billable, usageSource, outputTokens }: LedgerRow): boolean {
  return !billable && usageSource === 'recounted' && outputTokens === 0n;
}

/** The user pays for at most one attempt of a call. */
function billableFaults(rows: readonly LedgerRow[]): string[] {
  const billed = new Map<string, number>();
  for (const row of rows.filter((one) => one.billable)) {
    const call = row.attemptKey.slice(0, row.attemptKey.lastIndexOf('#'));
    billed.set(call, (billed.get(call) ?? 0) + 1);
  }
  return [...billed]
    .filter(([, times]) => times > 1)
    .map(([call, times]) => `${call}: billed ${times} times`);
}

function dueNanoUsd(options: CompareOptions, model: string, request: LoggedRequest): bigint | undefined {
  const price = priceAt(options.pricesOf(model), Date.now());
  if (price === undefined) return undefined;
  const { usage } = request;
  return costNanoUsd(price, {
    inputTokens: usage.inputTokens - usage.cachedInputTokens - usage.cacheWriteTokens,
    cacheReadTokens: usage.cachedInputTokens,
    cacheWrite5mTokens: usage.cacheWriteTokens,
    cacheWrite1hTokens: 0,
    outputTokens: usage.outputTokens,
  });
}

function isCharge(row: LedgerRow): boolean {
  return row.kind === 'charge' || row.kind === 'estimate';
}
