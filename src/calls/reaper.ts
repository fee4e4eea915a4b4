// Ends holds whose attempt ended without them: the worker died after its commit, Redis lost the record, or nobody came back for the
// call. Runs anywhere, under a lock, and needs no particular process.

import type { Attempt } from '../stores/ledger.ts';
import { toCallKeyOfAttempt } from '../task/keys.ts';
import type { CallDependencies } from './call.ts';
import { releaseAsCharged, resolveAttempt } from './recover.ts';

/** How long the owner's evidence of life still holds, in milliseconds; 0 when it is dead. */
export type OwnerLife = (owner: string) => Promise<number>;

export type ReaperReport = { readonly released: number; readonly resolved: number; readonly alive: number };

const LEASES_PER_PASS = 500;

/** One pass over all tenants known to Postgres. Does nothing until Redis was reachable for a whole lease. */
export async function reap(dependencies: CallDependencies, lifeOf: OwnerLife): Promise<ReaperReport> {
  const report = { released: 0, resolved: 0, alive: 0 };
  // After a break every lease looks over, since nobody could renew it.
  if (dependencies.gate.connectedForMs() < dependencies.settings.leaseMs) return report;
  for (const tenantId of await dependencies.ledger.tenants()) {
    for (const attemptKey of await dependencies.gate.expiredLeases(tenantId, LEASES_PER_PASS))
      report[await reapOne(dependencies, lifeOf, tenantId, attemptKey)] += 1;
    await findLost(dependencies, tenantId);
  }
  return report;
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
  const aliveMs = await lifeOf(attempt.owner);
  if (aliveMs > 0) {
    await dependencies.gate.extendLease(attempt, aliveMs);
    return 'alive';
  }
  await resolveAttempt(dependencies, attempt, taskOf(attempt));
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
  const attempt = { attemptKey, payer: holder.payer };
  const taken = await dependencies.gate.take(attempt);
  if (taken.kind === 'sent') await dependencies.gate.release(attempt, 'void', { nanoUsd: 0n, tokens: 0 });
  return 'released';
}

/** Attempts that Postgres has started and Redis does not know: their lease begins now, so that a living worker can show itself. */
async function findLost(dependencies: CallDependencies, tenantId: string): Promise<void> {
  for (const attempt of await dependencies.ledger.startedOfTenant(tenantId))
    if ((await dependencies.gate.lease(attempt)) === undefined)
      await dependencies.gate.restore(attempt, 'unknown');
}

/** Call keys of tasks are `taskId:runId:step:n`; ids may hold colons, so the run is read from the end. */
function taskOf(attempt: Attempt) {
  const { taskId, tenantId } = attempt.payer;
  const runId = attempt.callKey.split(':').at(-3);
  return taskId === undefined || runId === undefined ? undefined : { taskId, runId, tenantId };
}
