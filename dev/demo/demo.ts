// `npm run demo`: the embedded stack, tasks of every kind through it, then the ledger next to the provider's own log. Exits 0 only if
// everything it claims held.

import { join, resolve } from 'node:path';
import { Client, Connection } from '@temporalio/client';
import { createGatewayClient } from '../../src/client/gateway-client.ts';
import { createTaskClient } from '../../src/client/task-client.ts';
import { loadConfig } from '../../src/config.ts';
import { createLogger } from '../../src/log.ts';
import { createAccounts, type LedgerRow } from '../../src/stores/accounts.ts';
import { createLedger } from '../../src/stores/ledger.ts';
import { createPostgres } from '../../src/stores/postgres.ts';
import { formatUsd } from '../../src/task/money.ts';
import { compareCharges } from '../oracle/compare.ts';
import type { LoggedRequest } from '../simulated-provider/request-log.ts';
import { type Stack, startStack } from '../stack/stack.ts';
import { killed, parallel, refused, type Stage, throttled } from './scenes.ts';
import { bold, dim, green, heading, red, say, shorten, table } from './terminal.ts';

/** Slow enough to be watched, and to be killed in the middle. */
const PACE = ['--first-token-ms', '300', '--chunk-delay-ms', '60', '--tokens-per-chunk', '2'];
const IDLE_MS = 15_000;

async function main(): Promise<void> {
  const stateDir = join(resolve(process.env['WEIR_STATE_DIR'] ?? '.weir'), 'demo');
  const interrupted = new AbortController();
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => interrupted.abort());
  heading('Starting Temporal, Postgres, Redis, a simulated provider, two workers and a gateway');
  const stack = await startStack({
    stateDir,
    workers: 2,
    providerArgs: PACE,
    // The demo counts requests of a provider that tells: keys of real ones stay out of it.
    env: { OPENAI_API_KEY: '', ANTHROPIC_API_KEY: '', GOOGLE_API_KEY: '' },
    log: (line) => say(dim(line)),
    signal: interrupted.signal,
  });
  try {
    say(`gateway ${stack.info.gateway}   Temporal Web UI ${stack.info.temporalUi ?? stack.info.temporal}`);
    await Promise.race([play(stack), rejectOn(interrupted.signal)]);
  } finally {
    await stack.stop();
  }
}

async function play(stack: Stack): Promise<void> {
  const connection = await Connection.connect({ address: stack.info.temporal });
  const { provider, gateway, namespace } = stack.info;
  if (provider === undefined || gateway === undefined)
    throw new Error('the demo needs the simulated provider and the gateway');
  const stage: Stage = {
    stack,
    gateway: createGatewayClient({
      url: gateway,
      ...(stack.info.adminKey === undefined ? {} : { apiKey: stack.info.adminKey }),
    }),
    tasks: createTaskClient({
      temporal: new Client({ connection, namespace }),
      queuePrefix: 'weir',
      priorityQueues: true,
      searchAttributes: true,
    }),
    requests: async () => (await (await fetch(`${provider}/control/requests`)).json()) as LoggedRequest[],
    taskIds: [],
    killed: new Set(),
  };
  try {
    await parallel(stage);
    await refused(stage);
    await throttled(stage);
    await killed(stage);
    await reckon(stage);
  } finally {
    await connection.close();
  }
}

/** The ledger next to the provider's log: every request once, every charge to the nano-dollar, nothing held. */
async function reckon(stage: Stage): Promise<void> {
  heading("The ledger next to the provider's own log");
  const config = loadConfig({ env: stage.stack.env });
  const postgres = createPostgres(config.postgres, createLogger({ ...config.log, service: 'demo' }));
  try {
    await nothingHeld(createLedger(postgres, config.billing));
    const rows = await createAccounts(postgres).rows({ taskIds: stage.taskIds });
    const requests = await stage.requests();
    show(rows, requests);
    const result = compareCharges({
      rows,
      requests,
      pricesOf: (model) => config.models[model]?.prices ?? [],
      mayBeEstimated: (key) => stage.killed.has(key),
    });
    const faults = [...result.faults];
    if (result.estimates !== stage.killed.size)
      faults.push(`${result.estimates} estimates for ${stage.killed.size} killed requests`);
    if (result.requests < stage.taskIds.length)
      faults.push(`only ${result.requests} requests for ${stage.taskIds.length} tasks`);
    say();
    say(
      `${result.requests} requests at the provider = ${result.charges} charges + ${result.estimates} estimate; ${result.voids} voids; nothing held`,
    );
    if (faults.length > 0) throw new Error(`the ledger does not add up:\n${faults.join('\n')}`);
    say(
      green(
        '✓ every charge equals its request to the nano-dollar, every killed request is booked once, nothing else is booked',
      ),
    );
  } finally {
    await postgres.close();
  }
}

async function nothingHeld(ledger: Pick<ReturnType<typeof createLedger>, 'openHolds'>): Promise<void> {
  const giveUpAt = performance.now() + IDLE_MS;
  for (;;) {
    const { count } = await ledger.openHolds();
    if (count === 0) return;
    if (performance.now() > giveUpAt)
      throw new Error(`${count} holds are still open after ${IDLE_MS / 1000} s`);
    await new Promise((next) => setTimeout(next, 100));
  }
}

function show(rows: readonly LedgerRow[], requests: readonly LoggedRequest[]): void {
  const byKey = new Map(requests.map((request) => [request.attemptKey, request]));
  table(
    ['attempt', 'kind', 'ledger in/out', 'provider in/out', 'status', 'USD', 'billed'],
    rows.map((row) => {
      const request = byKey.get(row.attemptKey);
      const { usage } = request ?? {};
      return [
        shorten(row.attemptKey.replace(/^task-(.{8}).*?:answer/, '$1 answer'), 30),
        row.kind,
        `${row.inputTokens}/${row.outputTokens}`,
        usage === undefined ? '–' : `${usage.inputTokens}/${usage.outputTokens}`,
        `${request?.status ?? '–'} ${request?.outcome ?? ''}`,
        formatUsd(row.nanoUsd),
        row.billable ? 'yes' : '',
      ];
    }),
  );
}

function rejectOn(signal: AbortSignal): Promise<never> {
  return new Promise((_, reject) =>
    signal.addEventListener('abort', () => reject(new Error('interrupted')), { once: true }),
  );
}

main().then(
  () =>
    say(
      `\n${bold('The demo is done.')} ${dim('npm run dev keeps a stack up; README.md goes on from here.')}`,
    ),
  (error: unknown) => {
    say(red(`\nthe demo failed: ${error instanceof Error ? error.message : String(error)}`));
    process.exitCode = 1;
  },
);
