// What measures of fan-out share: a gateway process, the process of its readers, and a task whose calls stream.

import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseTaskInput } from '../src/task/input.ts';
import type { GatewayCost, GatewayOrder } from './fan-out-gateway.ts';
import type { BenchStores, Servers } from './harness.ts';

export type GatewayOptions = {
  readonly coalesceMs: number;
  /** Left out: as shipped. */
  readonly backlogBytes?: number;
  /** Where its processor profile is left; undefined: there is none. */
  readonly profile?: string | undefined;
};

export type Gateway = AsyncDisposable & { readonly port: number; cost(): Promise<GatewayCost> };

export type Child<Order> = AsyncDisposable & { ask(order: Order): Promise<unknown> };

export async function startGateway(
  servers: Servers,
  name: string,
  options: GatewayOptions,
): Promise<Gateway> {
  const { coalesceMs, backlogBytes = '', profile } = options;
  const child = fork(
    new URL('./fan-out-gateway.ts', import.meta.url),
    [servers.postgres, servers.redis, name, String(coalesceMs), String(backlogBytes)],
    { execArgv: profile === undefined ? [] : ['--cpu-prof', '--cpu-prof-dir', profile] },
  );
  const [port] = await once(child, 'message');
  return {
    port,
    cost: async () => (await ask(child, { kind: 'cost' } satisfies GatewayOrder)) as GatewayCost, // what it answers to this
    async [Symbol.asyncDispose]() {
      child.send({ kind: 'stop' } satisfies GatewayOrder);
      await once(child, 'exit');
    },
  };
}

/** A process that answers each order with one message, one at a time. */
export async function startChild<Order extends object>(file: string, port: number): Promise<Child<Order>> {
  const child = fork(new URL(file, import.meta.url), [String(port)]);
  await once(child, 'message');
  return {
    ask: (order) => ask(child, order),
    async [Symbol.asyncDispose]() {
      child.disconnect();
      await once(child, 'exit');
    },
  };
}

async function ask(child: ChildProcess, order: object): Promise<unknown> {
  const answer = once(child, 'message');
  child.send(order);
  return (await answer)[0];
}

export type StreamedTask = Awaited<ReturnType<typeof startTask>>;

/** A task that runs. Its events are published as a worker publishes them. */
export async function startTask({ stores, postgres }: BenchStores, taskId: string) {
  const parsed = parseTaskInput({ userId: 'u1', query: 'q' });
  if (parsed.kind === 'invalid') throw new Error('the input of the bench is invalid');
  const task = { taskId, runId: 'run-1', tenantId: 'default' };
  const row = { taskId, runId: task.runId, input: parsed.input, strategy: 'simple', model: 'm', limits: [] };
  await stores.tasks.begin(row, [{ id: 'begin', type: 'task_started' }]);
  await stores.events.publishPending(task);
  return {
    path: `/api/v1/tasks/${taskId}/stream`,
    /** A call with one attempt. */
    async startCall(stepId: string) {
      const callKey = `${taskId}:${task.runId}:${stepId}:1`;
      const attempt = `${callKey}#0.1.1.0`;
      const common = { stepId, callKey, attempt };
      await stores.events.append(task, [{ id: `${attempt}:started`, type: 'call_started', ...common }]);
      let k = 0;
      return {
        callKey,
        published: () => k,
        publish: (text: string): Promise<boolean> => {
          k += 1;
          const delta = { callKey, stepId, attemptKey: attempt, k: k - 1, text };
          return stores.events.publishDelta(task, delta);
        },
        async complete(text: string): Promise<void> {
          await postgres.query(
            `insert into call_results (call_key, tenant_id, task_id, attempt_key, status, model, text, finish_reason, usage, cost_nano_usd)
             values ($1, 'default', $2, $3, 'completed', 'm', $4, 'stop', '{}', 0)`,
            [callKey, taskId, attempt, text],
          );
          const data = { textBytes: Buffer.byteLength(text) };
          await stores.events.append(task, [
            { id: `${attempt}:completed`, type: 'call_completed', ...common, data },
          ]);
        },
      };
    },
    async end(): Promise<void> {
      await stores.tasks.end(task, { status: 'completed', resultText: 'done' }, [
        { id: 'finish', type: 'task_completed' },
        { id: 'stream_end', type: 'stream_end', data: { status: 'completed' } },
      ]);
      await stores.events.publishPending(task);
    },
  };
}

/** Publishes evenly for so long. */
export async function publishEvenly(
  publish: () => Promise<unknown>,
  { seconds, perSecond }: { readonly seconds: number; readonly perSecond: number },
): Promise<void> {
  const startedAt = performance.now();
  const underWay: Promise<unknown>[] = [];
  for (let count = 0; count < seconds * perSecond; count += 1) {
    underWay.push(publish());
    const waitMs = startedAt + ((count + 1) * 1_000) / perSecond - performance.now();
    if (waitMs > 1) await sleep(waitMs);
  }
  await Promise.all(underWay);
}
