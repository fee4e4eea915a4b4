// Ends holds whose attempt ended without them: the worker died after its commit, Redis lost the record, or nobody came back for the
// call. Runs anywhere, under a lock, and needs no particular process.

import type { Attempt } from '../stores/ledger.ts';
import { toCallKeyOfAttempt } from '../task/keys.ts';
import type { CallDependencies } from './call.ts';
import { releaseAsCharged, resolveAttempt } from './recover.ts';

/** How long an owner's evidence of life for a call still holds, in milliseconds; 0 when it is dead. */
export type OwnerLife = (owner: string, callKey: string) => Promise<number>;

export type ReaperReport = {
  readonly released: number;
  readonly resolved: number;
  readonly alive: number;
  /** What could not be ended this time; it comes again. */
  readonly failed: number;
};

const LEASES_PER_PASS = 500;
const ADJUSTMENT_SETTLES_MS = 5_000;
/** Most tenants have nothing to reap, and of those the time goes into asking: well below the connections of a process. */
const TENANTS_AT_ONCE = 8;

/** One pass over all tenants known to Postgres. Those whose gate is in Redis wait until it was reachable for a whole lease. */
export async function reap(dependencies: CallDependencies, lifeOf: OwnerLife): Promise<ReaperReport> {
  const report = { released: 0, resolved: 0, alive: 0, failed: 0 };
  // One attempt that cannot be ended must not keep the others from it.
  const each: Each = async (what, work) => {
    try {
      const done = await work();
      if (done !== undefined) report[done] += 1;
    } catch (error) {
      report.failed += 1;
      dependencies.log.warn('the reaper could not end a hold, it comes again', { what, error });
    }
  };
  const tenants = (await dependencies.ledger.tenants()).values();
  const lane = async () => {
    for (const tenantId of tenants)
      await each(tenantId, () => reapTenant(dependencies, lifeOf, tenantId, each));
  };
  await Promise.all(Array.from({ length: TENANTS_AT_ONCE }, lane));
  if (isRedisSettled(dependencies)) await each('adjustments', () => repeatAdjustments(dependencies));
  return report;
}

type Each = (what: string, work: () => Promise<keyof ReaperReport | undefined>) => Promise<void>;

/** After a break every lease in Redis looks over, since nobody could renew it. */
function isRedisSettled({ gate, settings }: CallDependencies): boolean {
  return gate.connectedForMs() >= settings.leaseMs;
}

async function reapTenant(
  dependencies: CallDependencies,
  lifeOf: OwnerLife,
  tenantId: string,
  each: Each,
): Promise<undefined> {
  const { gate, ledger } = dependencies;
  if ((await gate.modeOf(tenantId)) === 'redis' && !isRedisSettled(dependencies)) return;
  for (const attemptKey of await gate.expiredLeases(tenantId, LEASES_PER_PASS))
    await each(attemptKey, () => reapOne(dependencies, lifeOf, tenantId, attemptKey));
  for (const attempt of await ledger.startedOfTenant(tenantId))
    await each(attempt.attemptKey, () => findLost(dependencies, attempt));
}

async function reapOne(
  dependencies: CallDependencies,
  lifeOf: OwnerLife,
  tenantId: string,
  attemptKey: string,
): Promise<keyof ReaperReport> {
  const attempt = await dependencies.ledger.attempt(attemptKey, toCallKeyOfAttempt(attemptKey));
  if (attempt === undefined) return dropUnknown(dependencies, tenantId, attemptKey);
  if (attempt.state !== 'started') {
    await releaseAsCharged(dependencies, attempt);
    return 'released';
  }
  // Whatever its owner seems to be: nothing runs beyond the attempt's own limit.
  const isOverdue =
    Date.now() - attempt.heldAt.getTime() > dependencies.settings.attemptMs + dependencies.settings.leaseMs;
  const aliveMs = isOverdue ? 0 : await lifeOf(attempt.owner, attempt.callKey);
  if (aliveMs > 0) {
    await dependencies.gate.extendLease(attempt, aliveMs);
    return 'alive';
  }
  await resolveAttempt(dependencies, attempt, { task: taskOf(attempt), seenBefore: 0 });
  return 'resolved';
}

/** A hold that never became an intent: it cannot have been sent. */
async function dropUnknown(
  dependencies: CallDependencies,
  tenantId: string,
  attemptKey: string,
): Promise<keyof ReaperReport> {
  const holder = await dependencies.gate.holder(tenantId, attemptKey);
  if (holder === undefined) {
    await dependencies.gate.dropLease(tenantId, attemptKey);
    return 'released';
  }
  const hold = { attemptKey, payer: holder.payer };
  const taken = await dependencies.gate.take(hold);
  if (taken.kind !== 'sent') return 'released';
  // The intent comes before the mark: a row that was not there at first is there now.
  const row = await dependencies.ledger.attempt(attemptKey, toCallKeyOfAttempt(attemptKey));
  if (row === undefined) await dependencies.gate.release(hold, 'void', { nanoUsd: 0n, tokens: 0 });
  return 'released';
}

/**
 * An attempt that Postgres has started and its gate does not know: its lease begins now, so that a living worker can show itself. One
 * that the gate knows as over ends here.
 */
async function findLost(
  dependencies: CallDependencies,
  attempt: Attempt,
): Promise<keyof ReaperReport | undefined> {
  if ((await dependencies.gate.lease(attempt)) !== undefined) return undefined;
  if ((await dependencies.gate.restore(attempt, 'unknown')) === 'restored') return undefined;
  await resolveAttempt(dependencies, attempt, { task: taskOf(attempt), seenBefore: 0 });
  return 'resolved';
}

/** An adjustment whose worker died before it told Redis: the scopes are forgotten and rebuilt. Its marker makes this happen once. */
async function repeatAdjustments(dependencies: CallDependencies): Promise<undefined> {
  const { attemptMs } = dependencies.settings;
  for (const { adjustKey, ...attempt } of await dependencies.ledger.recentAdjustments(
    ADJUSTMENT_SETTLES_MS,
    attemptMs,
  )) {
    const { generation } = await dependencies.ledger.gate(attempt.payer.tenantId);
    await dependencies.gate.adjust(attempt, generation, {
      adjustKey,
      nanoUsd: 0n,
      tokens: 0,
      scopeVersions: [],
    });
  }
}

/** Call keys of tasks are `taskId:runId:step:n`; ids may hold colons, so the run is read from the end. */
function taskOf(attempt: Attempt) {
  const { taskId, tenantId } = attempt.payer;
  const runId = attempt.callKey.split(':').at(-3);
  return taskId === undefined || runId === undefined ? undefined : { taskId, runId, tenantId };
}
