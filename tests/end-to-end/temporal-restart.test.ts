import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { compareCharges } from '../../dev/oracle/compare.ts';
import { startStack } from '../../dev/stack/stack.ts';
import { loadConfig } from '../../src/config.ts';
import { eventually } from '../support/eventually.ts';
import { openFleet } from '../support/fleet.ts';
import { FREE_PORTS } from '../support/servers.ts';

it('completes ten running tasks after Temporal was killed and restarted on its file', {
  timeout: 120_000,
}, async () => {
  const stateDir = await mkdtemp(join(tmpdir(), 'weir-restart-'));
  const stack = await startStack({ stateDir, workers: 0, processes: false, ports: FREE_PORTS });
  try {
    await using fleet = await openFleet({
      servers: { temporal: stack.info.temporal },
      provider: { firstTokenMs: 500, chunkDelayMs: 100, tokensPerChunk: 2 },
    });
    await fleet.startWorker();
    const started = await Promise.all(
      Array.from({ length: 10 }, (_, n) =>
        fleet.tasks.start({ userId: 'user', query: `What is ${n} times seven? Say why.` }),
      ),
    );
    await eventually(() =>
      expect(fleet.provider.requests().filter((one) => one.outputTokensSent > 0).length).toBeGreaterThan(3),
    );
    await stack.kill('temporal');
    // The server comes back on its file and port; a client that asks while it is away is told so.
    const results = await Promise.all(
      started.map(({ taskId }) => eventually(() => fleet.tasks.result(taskId), 60_000)),
    );
    expect(results.map((result) => result.status)).toEqual(Array.from({ length: 10 }, () => 'completed'));
    const { models } = loadConfig({ env: {} });
    const comparison = compareCharges({
      requests: fleet.provider.requests(),
      rows: await fleet.test.stores.accounts.rows({ taskIds: started.map(({ taskId }) => taskId) }),
      pricesOf: (model) => models[model]?.prices ?? [],
      mayBeEstimated: () => true,
    });
    expect(comparison.faults).toEqual([]);
  } finally {
    await stack.stop();
    await rm(stateDir, { recursive: true, force: true });
  }
});
