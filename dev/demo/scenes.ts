// The scenes of the demo, each with its own claim. A claim that does not hold is a failure of the demo, said in words.

import { readFile } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import type { GatewayClient } from '../../src/client/gateway-client.ts';
import type { TaskClient } from '../../src/client/task-client.ts';
import type { TaskEvent } from '../../src/task/event.ts';
import type { LoggedRequest } from '../simulated-provider/request-log.ts';
import type { Stack } from '../stack/stack.ts';
import { bold, dim, green, heading, say, shorten } from './terminal.ts';

export type Stage = {
  readonly stack: Stack;
  readonly gateway: GatewayClient;
  readonly tasks: TaskClient;
  readonly requests: () => Promise<readonly LoggedRequest[]>;
  /** Ids of all tasks that were started, for the ledger. */
  readonly taskIds: string[];
  /** Attempts whose worker was killed. */
  readonly killed: Set<string>;
};

const USER = 'demo';
const WAIT_MS = 60_000;

/** Starts a task and follows it to its end; answers its last state and everything that was said about it. */
async function follow(stage: Stage, input: unknown, onEvent: (event: TaskEvent) => void = () => undefined) {
  const { taskId } = await stage.tasks.start(input);
  stage.taskIds.push(taskId);
  const events: TaskEvent[] = [];
  for await (const event of stage.gateway.follow(taskId)) {
    events.push(event);
    onEvent(event);
  }
  return { taskId, events, task: await stage.gateway.get(taskId) };
}

/** Twelve tasks at once; the first one's text is shown as it comes. */
export async function parallel(stage: Stage): Promise<void> {
  heading('Twelve tasks at once');
  const lines = (await readFile(new URL('../../examples/tasks.jsonl', import.meta.url), 'utf8'))
    .trim()
    .split('\n');
  const inputs = lines.map((line) => JSON.parse(line) as { query?: string });
  let isStreaming = true;
  process.stdout.write(dim('live › '));
  const followed = await Promise.all(
    inputs.map(async (input, index) => {
      const done = await follow(stage, input, (event) => {
        const text = event.type === 'call_delta' ? event.data?.['text'] : undefined;
        if (index === 0 && typeof text === 'string') process.stdout.write(dim(text.replaceAll('\n', ' ')));
      });
      if (index === 0 && isStreaming) {
        isStreaming = false;
        say();
      }
      return done;
    }),
  );
  for (const [index, { task, taskId }] of followed.entries()) {
    if (task.status !== 'completed') throw new Error(`task ${taskId} ended as ${task.status}`);
    say(
      `${green('✓')} ${shorten(inputs[index]?.query ?? 'a conversation', 44).padEnd(44)} $${task.costUsd.padEnd(12)} ${dim(shorten(task.result?.text ?? '', 60))}`,
    );
  }
}

/** A task whose budget is smaller than its call: refused before anything is sent. */
export async function refused(stage: Stage): Promise<void> {
  heading('A task whose budget is too small');
  const { task } = await follow(stage, {
    userId: USER,
    query: 'Write a long essay about dams.',
    budget: { usd: '0.000001' },
  });
  if (task.error?.type !== 'BudgetExceeded')
    throw new Error(`the task ended as ${task.status}, not refused by its budget`);
  say(`${green('✓')} refused: ${task.error.message}`);
}

/** The provider says "not before"; the task waits in a durable timer and completes. */
export async function throttled(stage: Stage): Promise<void> {
  heading('A provider that answers 429');
  const marker = `[[sim:{"id":"${Date.now()}","status":429,"retryAfterMs":1500,"times":1}]]`;
  const { task, events } = await follow(stage, { userId: USER, query: `What does a weir do? ${marker}` });
  const waited = events.find((event) => event.type === 'rate_wait');
  if (waited === undefined || task.status !== 'completed')
    throw new Error(`the task ended as ${task.status} without having waited`);
  say(
    `${green('✓')} waited ${String(waited.data?.['ms'])} ms for "${waited.message}", then completed for $${task.costUsd}`,
  );
}

/** SIGKILL to the worker in the middle of a stream; another one finishes, and the lost request is booked once. */
export async function killed(stage: Stage): Promise<void> {
  heading('A worker killed in mid-stream');
  const query =
    'Tell the story of a river from its spring to the sea. It begins small. It grows with every brook. It slows in the plain.';
  const { taskId } = await stage.tasks.start({ userId: USER, query });
  stage.taskIds.push(taskId);
  const attempt = await until(async () => {
    const request = (await stage.requests()).find(
      (one) => one.attemptKey?.startsWith(`${taskId}:`) && one.outputTokensSent > 2,
    );
    return request?.attemptKey ?? undefined;
  });
  const index = await workerOf(stage, taskId);
  stage.killed.add(attempt);
  await stage.stack.killWorker(index);
  say(`${dim('›')} worker ${index + 1} is dead; its heartbeat stops, its lease runs out …`);
  for await (const event of stage.gateway.follow(taskId))
    if (event.type === 'call_started' || event.type === 'attempt_reset' || event.type === 'call_completed')
      say(dim(`  ${event.type} ${shorten(event.attempt ?? '', 90)}`));
  const task = await stage.gateway.get(taskId);
  if (task.status !== 'completed') throw new Error(`the task ended as ${task.status}`);
  say(`${green('✓')} completed by another worker: ${bold(shorten(task.result?.text ?? '', 80))}`);
}

/** Which worker process has the task's call, by the identity that Temporal has of it. */
async function workerOf(stage: Stage, taskId: string): Promise<number> {
  const pid = await until(() => stage.tasks.workerPid(taskId));
  const index = stage.stack.info.pids.workers.indexOf(pid);
  if (index < 0)
    throw new Error(`the call of ${taskId} runs in process ${pid}, which is no worker of this stack`);
  return index;
}

async function until<Result>(look: () => Promise<Result | undefined>): Promise<Result> {
  const giveUpAt = performance.now() + WAIT_MS;
  for (;;) {
    const found = await look();
    if (found !== undefined) return found;
    if (performance.now() > giveUpAt)
      throw new Error('what the scene waits for did not happen within a minute');
    await sleep(50);
  }
}
