// Far more tasks than a limit has room for, from several client processes at once, against several workers: how many reach the
// provider, and whether anybody was refused who had room.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { parseUsd } from '../../src/task/money.ts';
import type { ClientOrder } from './chaos-client.ts';
import { eventually } from './eventually.ts';
import type { Fleet } from './fleet.ts';

export type AdmissionOptions = {
  readonly tasks: number;
  readonly clients: number;
  readonly workers: number;
  readonly input: { readonly userId: string; readonly [field: string]: unknown };
};

export type AdmissionReport = {
  /** Requests that reached the provider. */
  readonly reached: number;
  readonly completed: number;
  readonly refused: number;
  /** Refused although the limit, as the refusal itself tells it, had room beside what was settled. */
  readonly refusedWithRoom: readonly string[];
  /** Failed for any other reason. */
  readonly otherwise: readonly string[];
  /** The most that was settled and held together at any look. Nano-USD. */
  readonly highest: bigint;
  readonly settled: bigint;
};

/** What the price list must say: input costs nothing, so that a call costs its output alone, $0.001 a token. */
const CONFIG = {
  'models.yaml': `
models:
  simulated/plain:
    tier: small
    contextWindow: 128000
    maxOutputTokens: 1000
    capabilities: [tools, json]
    prices: [{validFrom: 2025-01-01, input: 0, output: 1000.00}]
`,
  'limits.yaml': `
rates:
  providers: {simulated: {rpm: unlimited, tpm: unlimited, maxParallel: unlimited}}
  tiers: {small: {rpm: unlimited, tpm: unlimited}}
budgets:
  user: [{unit: usd, window: total, amount: "5.00"}]
  task: []
`,
} as const;

/** On a slow machine fifty calls take longer than anybody would wait for the holds of others, and who waits is not to be refused. */
export const ADMISSION_FLEET = { config: CONFIG, env: { WEIR_BUDGET_HELD_WAIT: '10m' } } as const;

/** A query whose answer has a hundred tokens: $0.10. */
export const TEN_CENTS = {
  userId: 'payer',
  model: 'simulated/plain',
  query: 'What does a weir measure? [[sim:{"outputTokens":100}]]',
} as const;

const END_WITHIN_MS = 900_000;

export async function admission(fleet: Fleet, options: AdmissionOptions): Promise<AdmissionReport> {
  await Promise.all(Array.from({ length: options.workers }, () => fleet.startWorker()));
  const taskIds = Array.from({ length: options.tasks }, (_, n) => `admission-${n}`);
  const shares = Array.from({ length: options.clients }, (_, client) =>
    taskIds.filter((_id, n) => n % options.clients === client),
  );
  const clients = Promise.all(shares.map((share) => runClient(fleet, share, options.input)));
  const highest = await watchUntilEnded(fleet, options.tasks);
  await clients;
  const { rows } = await fleet.test.postgres.query<EndedTask>(
    'select task_id as "taskId", status, error from tasks where task_id = any($1)',
    [taskIds],
  );
  const refusals = rows.filter(({ error }) => error?.type === 'BudgetExceeded');
  const { nanoUsd } = await fleet.test.stores.accounts.settled('default', {
    kind: 'user',
    id: options.input.userId,
  });
  const completed = rows.filter(({ status }) => status === 'completed');
  return {
    reached: fleet.provider.requests().length,
    completed: completed.length,
    refused: refusals.length,
    refusedWithRoom: refusals.filter(hadRoom).map(({ error }) => JSON.stringify(error?.details)),
    otherwise: rows
      .filter((row) => !completed.includes(row) && !refusals.includes(row))
      .map(({ status, error }) => `${status} ${JSON.stringify(error)}`),
    highest,
    settled: nanoUsd,
  };
}

type EndedTask = {
  readonly taskId: string;
  readonly status: string;
  readonly error: { readonly type: string; readonly details: Readonly<Record<string, string>> } | null;
};

/** `begin` refuses without an estimate, when the limit is full to the last; every call tells what it needed. */
function hadRoom({ error }: EndedTask): boolean {
  const amount = (field: string) => {
    const nano = parseUsd(error?.details[field] ?? '');
    if (nano === undefined) throw new Error(`a refusal does not tell ${field}: ${JSON.stringify(error)}`);
    return nano;
  };
  const [settled, needed, limit] = [amount('settled'), amount('needed'), amount('limit')];
  return needed === 0n ? settled < limit : settled + needed <= limit;
}

async function runClient(fleet: Fleet, taskIds: readonly string[], input: unknown): Promise<void> {
  const { temporalAddress: address, queuePrefix } = fleet;
  const order: ClientOrder = { address, queuePrefix, taskIds, input };
  const path = new URL('./chaos-client.ts', import.meta.url).pathname;
  const child = spawn(process.execPath, [path, JSON.stringify(order)], {
    stdio: ['ignore', 'ignore', 'inherit'],
  });
  const [code] = await once(child, 'exit');
  if (code !== 0) throw new Error(`a client ended with ${code}`);
}

/** Looks again and again at what is settled and held in one moment. */
async function watchUntilEnded({ test }: Fleet, tasks: number): Promise<bigint> {
  let highest = 0n;
  await eventually(async () => {
    const { rows } = await test.postgres.query<{ nano: bigint; ended: number }>(
      `select (select coalesce(sum(cost_nano_usd), 0)::bigint from ledger)
         + (select coalesce(sum(estimate_nano_usd), 0)::bigint from attempts where state = 'started') as nano,
         (select count(*)::int from tasks where ended_at is not null) as ended`,
    );
    const { nano = 0n, ended = 0 } = rows[0] ?? {};
    if (nano > highest) highest = nano;
    if (ended < tasks) throw new Error(`${ended} of ${tasks} tasks have ended`);
  }, END_WITHIN_MS);
  return highest;
}
