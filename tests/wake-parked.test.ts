import { expect, it } from 'vitest';
import { loadConfig } from '../src/config.ts';
import { wakeParked } from '../src/wake-parked.ts';
import { folderWith } from './config/overlay.ts';
import { beginTask } from './support/calls.ts';
import { openTestStores, QUIET } from './support/stores.ts';

const BUDGETS = (amount: number) => ({
  'limits.yaml': `budgets: {user: [{unit: tokens, window: day, amount: ${amount}}]}\n`,
});
const withFiles = (files: Readonly<Record<string, string>>) =>
  loadConfig({ env: {}, configDir: folderWith(files) });
const UNTIL = new Date(Date.now() + 60_000).toISOString();

it('wakes who is parked on a budget when configured budgets change, and nobody else', async () => {
  await using test = await openTestStores();
  for (const [taskId, reason] of [
    ['on-a-budget', 'budget of user user (tokens a day)'],
    ['on-a-rate', 'simulated rpm'],
  ] as const) {
    await beginTask(test, taskId, [], `run-of-${taskId}`);
    const waiting = { reason, until: UNTIL };
    await test.stores.tasks.note(taskId, `run-of-${taskId}`, {
      status: 'waiting',
      phase: 'waiting',
      waiting,
    });
  }
  await beginTask(test, 'at-work', [], 'run-of-at-work');
  const woken: string[] = [];
  const parts = {
    client: {
      budgetChanged: async (taskId: string) => {
        woken.push(taskId);
        return true;
      },
    },
    postgres: test.postgres,
    log: QUIET,
  };
  const [few, many] = [withFiles(BUDGETS(1)), withFiles(BUDGETS(9))];
  await wakeParked(parts, { before: few, after: withFiles(BUDGETS(1)) });
  expect(woken).toEqual([]);
  await wakeParked(parts, { before: few, after: many });
  expect(woken).toEqual(['on-a-budget']);
});

it('leaves them to their timers when Postgres is away', async () => {
  const parts = {
    client: { budgetChanged: () => Promise.reject(new Error('nobody is to be woken')) },
    postgres: { query: () => Promise.reject(new Error('away')) },
    log: QUIET,
  };
  await wakeParked(parts, { before: withFiles(BUDGETS(1)), after: withFiles(BUDGETS(9)) });
});
