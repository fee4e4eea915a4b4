// One of the processes that ask for holds at once (limits.ts).

import { setTimeout as sleep } from 'node:timers/promises';
import type { AttemptDraft, BudgetHold } from '../src/stores/budget-gate.ts';
import type { BindingLimit } from '../src/task/budget.ts';
import { joinBenchStores } from './harness.ts';

export type Round = { readonly number: number; readonly process: number; readonly holds: number };
export type Counts = { readonly ok: number; readonly refused: number; readonly askedAgain: number };

const DIME = 100_000_000n;

const [postgres = '', redis = '', name = '', store = ''] = process.argv.slice(2);
const bench = await joinBenchStores({ postgres, redis }, name, store === 'postgres' ? 'postgres' : 'redis');
process.on('message', (round: Round) => void play(round));
process.on('disconnect', () => process.exit(0));
process.send?.('ready');

async function play({ number, process: own, holds }: Round): Promise<void> {
  const counts = { ok: 0, refused: 0, askedAgain: 0 };
  const payer = { tenantId: 'crowd', userId: `user-${number}` };
  const limit: BindingLimit = {
    ...{ unit: 'usd', window: 'total', amount: 50n * DIME, hard: true, warnAt: 0.8 },
    scope: { kind: 'user', id: payer.userId },
  };
  const ask = async (n: number): Promise<void> => {
    const callKey = `task-${number}-${own}-${n}:run:answer:1`;
    const draft = {
      ...{ attemptKey: `${callKey}#0.1.1.0`, callKey, payer, stepId: 'answer' },
      ...{ provider: 'simulated', model: 'simulated/small', candidate: 0, priceHash: 'hash' },
      owner: `process bench-${own}`,
      estimate: { nanoUsd: DIME, tokens: 1_500, inputTokens: 500, maxOutputTokens: 1_000 },
    };
    const answer = await hold(draft, limit, counts);
    if (answer.kind === 'done') throw new Error(`${draft.attemptKey} was over before it began`);
    counts[answer.kind === 'ok' ? 'ok' : 'refused'] += 1;
  };
  await Promise.all(Array.from({ length: holds }, (_, n) => ask(n)));
  process.send?.(counts satisfies Counts);
}

/** A pool that is full for three seconds throws, and a caller comes back; the attempt's key makes that safe. */
async function hold(
  draft: AttemptDraft,
  limit: BindingLimit,
  counts: { askedAgain: number },
): Promise<BudgetHold> {
  for (let tries = 1; ; tries += 1) {
    try {
      return await bench.stores.gate.hold(draft, [limit]);
    } catch (error) {
      if (tries === 20) throw error;
      counts.askedAgain += 1;
      await sleep(50 + 100 * Math.random());
    }
  }
}
