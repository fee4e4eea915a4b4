import { readdir, readFile } from 'node:fs/promises';
import { historyFromJSON } from '@temporalio/common/lib/proto-utils.js';
import { Worker } from '@temporalio/worker';
import { expect, it } from 'vitest';

const FOLDER = new URL('../histories/', import.meta.url);
const KINDS = [
  ...['approved', 'cancelled', 'degraded', 'detached', 'happy', 'invalid', 'raised', 'refused', 'retried'],
  ...['throttled', 'timed-out', 'waited'],
];
const workflowsPath = new URL('../../src/workflows/index.ts', import.meta.url).pathname;

async function histories() {
  const names = (await readdir(FOLDER)).filter((name) => name.endsWith('.json')).sort();
  return Promise.all(
    names.map(async (name) => ({
      workflowId: name,
      history: historyFromJSON(JSON.parse(await readFile(new URL(name, FOLDER), 'utf8'))),
    })),
  );
}

it('replays every recorded history on the present code', { timeout: 60_000 }, async () => {
  const recorded = await histories();
  expect(recorded.map((one) => one.workflowId.replace('.json', ''))).toEqual(KINDS);
  const failed: string[] = [];
  for await (const result of Worker.runReplayHistories({ workflowsPath }, recorded))
    if (result.error !== undefined) failed.push(`${result.workflowId}: ${result.error.message}`);
  expect(failed).toEqual([]);
});

it('notices a history that the code would not have made', { timeout: 60_000 }, async () => {
  const happy = (await histories()).find((one) => one.workflowId === 'happy.json');
  if (happy === undefined) throw new Error('there is no happy history');
  for (const event of happy.history.events ?? []) {
    const scheduled = event.activityTaskScheduledEventAttributes;
    if (scheduled?.activityType) scheduled.activityType.name = 'somethingElse';
  }
  const [result] = await Array.fromAsync(Worker.runReplayHistories({ workflowsPath }, [happy]));
  expect(result?.error?.name).toBe('DeterminismViolationError');
});
