// What an attempt really took, or that it took nothing, when somebody may have booked an estimate of it before: the difference is booked,
// and the counters follow.

import type { Attempt, Charge } from '../stores/ledger.ts';
import { NO_USAGE, totalTokens } from '../task/usage.ts';
import type { CallDependencies } from './call.ts';

export const NOTHING_CHARGED: Charge = { usage: NO_USAGE, nanoUsd: 0n, source: 'none' };

type Booking = Pick<CallDependencies, 'gate' | 'ledger'>;

/** Books the difference once. @param patiently runs what needs Postgres, again where it is away and that is worth waiting for */
export async function bookLate(
  { gate, ledger }: Booking,
  attempt: Attempt,
  charge: Charge,
  patiently: <Result>(work: () => Promise<Result>) => Promise<Result> = (work) => work(),
): Promise<void> {
  const { difference, scopeVersions } = await patiently(async () => {
    const versions = await gate.scopeVersions(attempt.payer, attempt.generation);
    return { scopeVersions: versions, difference: await ledger.adjustLate(attempt, charge) };
  });
  if (difference === undefined) return;
  await gate.adjust(attempt, attempt.generation, {
    adjustKey: 'late',
    nanoUsd: difference.nanoUsd,
    tokens: totalTokens(difference.usage),
    scopeVersions,
  });
}

/** Nobody else can know that it was not sent: whoever found it first had to book an estimate, which is taken back. */
export async function voidUnsent(dependencies: Booking, attempt: Attempt): Promise<void> {
  const { ledger } = dependencies;
  const isVoided = await ledger.resolve(attempt, { to: 'voided', outcome: 'lost', charge: NOTHING_CHARGED });
  if (!isVoided && (await ledger.state(attempt)) === 'estimated')
    await bookLate(dependencies, attempt, NOTHING_CHARGED);
}
