// Settings that change under a running worker, whose files are exchanged as Kubernetes does it. Nothing is started again.

import { mkdirSync, renameSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { folderWith } from '../config/overlay.ts';
import { eventually } from '../support/eventually.ts';
import { type Fleet, type FleetWorker, openFleet } from '../support/fleet.ts';

const FILES = ['default.yaml', 'models.yaml', 'limits.yaml'] as const;
const QUERY = 'What does a weir measure? Answer in exactly 100 tokens.';
/** USD per million output tokens; input costs nothing, so that an answer of 100 tokens costs exactly 100 of these. */
const PRICE = (output: number) =>
  `models: {simulated/small: {prices: [{validFrom: 2025-01-01, input: 0, output: ${output}}]}}\n`;

type Settings = { readonly [name in 'rpm' | 'user' | 'output' | 'failures' | 'level']?: string };

/** A folder that holds links to `..data`, which is a link itself. */
function configMap() {
  const folder = folderWith({});
  let version = 0;
  const put = (files: Readonly<Record<string, string>>) => {
    version += 1;
    const name = `..version_${version}`;
    mkdirSync(join(folder, name));
    for (const file of FILES) writeFileSync(join(folder, name, file), files[file] ?? '');
    symlinkSync(name, join(folder, '..data_tmp'));
    renameSync(join(folder, '..data_tmp'), join(folder, '..data'));
  };
  const set = ({
    rpm = 'unlimited',
    user = '[]',
    output = '1',
    failures = '1000',
    level = 'info',
  }: Settings) =>
    put({
      'default.yaml': `log: {level: ${level}}\nbreakers: {llm: {failureThreshold: ${failures}}}\n`,
      'models.yaml': PRICE(Number(output)),
      'limits.yaml': `rates: {providers: {simulated: {rpm: ${rpm}, tpm: unlimited}}}\nbudgets: {user: ${user}}\n`,
    });
  set({});
  for (const file of FILES) symlinkSync(join('..data', file), join(folder, file));
  return { folder, put, set };
}

async function metric({ metricsUrl }: FleetWorker, series: string): Promise<number> {
  const page = await (await fetch(metricsUrl)).text();
  const line = page.split('\n').find((one) => one.startsWith(`weir_${series} `));
  return Number(line?.split(' ').at(-1));
}

const becomes = (worker: FleetWorker, series: string, value: number) =>
  eventually(async () => expect([series, await metric(worker, series)]).toEqual([series, value]), 60_000);

async function costOf({ test }: Fleet, taskId: string) {
  const { rows } = await test.postgres.query<{ nano: bigint; hash: string }>(
    'select cost_nano_usd as nano, price_hash as hash from ledger where task_id = $1 and billable',
    [taskId],
  );
  return rows[0];
}

it('takes over prices, rates, default budgets, breakers and the log level while it runs', {
  timeout: 600_000,
}, async () => {
  const { folder, put, set } = configMap();
  await using fleet = await openFleet({ provider: { firstTokenMs: 10, chunkDelayMs: 5 } });
  const worker = await fleet.startWorker({ WEIR_CONFIG_DIR: folder });
  const start = (query = QUERY, budget = {}) =>
    fleet.tasks.start({ userId: 'user', model: 'simulated/small', query, budget });
  const run = async (query = QUERY, budget = {}) => {
    const { taskId } = await start(query, budget);
    return { taskId, end: fleet.tasks.result(taskId) };
  };

  // Prices: a call under way keeps those it was held with.
  const before = await run(`${QUERY} [[sim:{"chunkDelayMs":200,"tokensPerChunk":4}]]`);
  await eventually(() => expect(fleet.provider.requests()[0]?.outputTokensSent).toBeGreaterThan(0));
  set({ output: '7' });
  await becomes(worker, 'config_reload_total{file="models.yaml"}', 1);
  const after = await run();
  await Promise.all([before.end, after.end]);
  const [old, fresh] = [await costOf(fleet, before.taskId), await costOf(fleet, after.taskId)];
  expect([old?.nano, fresh?.nano]).toEqual([100_000n, 700_000n]);
  expect(old?.hash).not.toBe(fresh?.hash);

  // Rates: the second request of a minute waits, and waits no more once there is no limit.
  set({ rpm: '1' });
  await becomes(worker, 'config_reload_total{file="limits.yaml"}', 1);
  // The end of the one that waits would come after that of the test.
  const paced = [await start(), await start()];
  await eventually(async () => {
    const rows = await Promise.all(paced.map(({ taskId }) => fleet.test.stores.tasks.get(taskId)));
    expect(rows.map((row) => row?.status).sort()).toEqual(['completed', 'waiting']);
  });
  set({});
  await becomes(worker, 'config_reload_total{file="limits.yaml"}', 2);
  expect(await (await run()).end).toMatchObject({ status: 'completed' });

  // Budgets of scopes that have none of their own: a call may take some 4,200 tokens, and hundreds are used up. A task that waits for
  // the next month goes on once there is no limit.
  set({ user: '[{unit: tokens, window: month, amount: 4300}]' });
  await becomes(worker, 'config_reload_total{file="limits.yaml"}', 3);
  await expect((await run()).end).rejects.toThrow();
  const refused = await fleet.test.postgres.query('select scope from budget_refusals');
  expect(refused.rows).toEqual([{ scope: 'user' }]);
  const parked = await run(QUERY, { onExceeded: 'wait' });
  await eventually(async () => {
    const row = await fleet.test.stores.tasks.get(parked.taskId);
    expect([row?.status, row?.waiting]).toMatchObject([
      'waiting',
      { reason: expect.stringContaining('budget') },
    ]);
  });
  set({});
  expect(await parked.end).toMatchObject({ status: 'completed' });

  // Breakers: what was far from too many failures is too many now.
  set({ failures: '1' });
  await becomes(worker, 'config_reload_total{file="default.yaml"}', 1);
  // Nobody waits for the end of these either.
  for (let n = 0; n < 3; n += 1) await start(`${QUERY} [[sim:{"status":500,"id":"${n}"}]]`);
  await becomes(worker, 'breaker_state{breaker="llm:simulated/small"}', 2);

  // The log: the first change is below its own level, the second is told. SIGHUP reads even where nothing changed.
  set({ level: 'error' });
  await becomes(worker, 'config_reload_total{file="default.yaml"}', 2);
  set({});
  await becomes(worker, 'config_reload_total{file="default.yaml"}', 3);
  process.kill(worker.pid, 'SIGHUP');
  await eventually(() => expect(worker.output()).toContain('"cause":"SIGHUP"'));
  expect(worker.output().split('"log.level"')).toHaveLength(2);

  // A bad file among good ones changes nothing, and says where.
  put({ 'default.yaml': 'log:\n  levle: debug\n', 'models.yaml': PRICE(9) });
  await becomes(worker, 'config_reload_failed{file="default.yaml"}', 1);
  await eventually(() => expect(worker.output()).toContain(`${folder}/default.yaml:2`));
  expect(await metric(worker, 'config_reload_total{file="models.yaml"}')).toBe(2);
  set({});
  await becomes(worker, 'config_reload_failed{file="default.yaml"}', 0);
});
