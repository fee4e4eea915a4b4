// Keeps an attempt's lease while its request runs, and notices when the attempt is no longer ours.

import type { Attempt } from '../stores/ledger.ts';
import type { CallDependencies } from './call.ts';
import { toPermit } from './permit.ts';

export type Lease = {
  /** Fires when somebody else resolved the attempt: its socket must be closed. */
  readonly lost: AbortSignal;
  stop(): void;
};

/** Renews every `leaseRenewalMs`; `outputTokens` is what a lost attempt would be estimated from. */
export function keepLease(
  dependencies: Pick<CallDependencies, 'gate' | 'rates' | 'ledger' | 'settings' | 'log'>,
  attempt: Attempt,
  outputTokens: () => number,
): Lease {
  const lost = new AbortController();
  const renew = async () => {
    try {
      if (!(await dependencies.gate.renew(attempt, outputTokens())))
        await reclaim(dependencies, attempt, lost);
      await dependencies.rates.renew(toPermit(attempt));
    } catch (error) {
      // A store that is away for a moment: the next renewal comes in a few seconds, and a lease outlives two of them.
      dependencies.log.debug('lease not renewed', { attempt: attempt.attemptKey, error });
    }
  };
  const timer = setInterval(() => void renew(), dependencies.settings.leaseRenewalMs);
  return { lost: lost.signal, stop: () => clearInterval(timer) };
}

/** No record in Redis: either the attempt is over, or Redis lost it while Postgres still has it started. */
async function reclaim(
  dependencies: Pick<CallDependencies, 'gate' | 'ledger'>,
  attempt: Attempt,
  lost: AbortController,
): Promise<void> {
  if ((await dependencies.ledger.state(attempt)) === 'started')
    await dependencies.gate.restore(attempt, 'yes');
  else lost.abort(new Error(`attempt ${attempt.attemptKey} was resolved by somebody else`));
}
