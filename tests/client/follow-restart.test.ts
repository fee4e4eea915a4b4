// Readers of a gateway that is killed in mid-stream and comes back on its port: the client's iterator and `weir tail`, which is told
// nothing but the task. The gateway is the real process; events are published as workers publish them while it is away.

import { afterAll, beforeAll, expect, it } from 'vitest';
import { createGatewayClient } from '../../src/client/gateway-client.ts';
import type { TaskEvent } from '../../src/task/event.ts';
import { openShell } from '../cli/run-weir.ts';
import { createStoredTask, textOf } from '../gateway/events.ts';
import { eventually } from '../support/eventually.ts';
import { startGatewayProcess } from '../support/gateway-process.ts';
import { openTestStores, type TestStores } from '../support/stores.ts';

let test: TestStores;

beforeAll(async () => {
  test = await openTestStores();
});
afterAll(() => test[Symbol.asyncDispose]());

it('loses and repeats nothing when the gateway is killed in mid-stream and started again', {
  timeout: 120_000,
}, async () => {
  const gateway = await startGatewayProcess(test);
  const env = { WEIR_GATEWAY_PORT: String(gateway.port) };
  await using shell = await openShell();
  const task = createStoredTask(test, 'killed-1');
  await task.begin();
  await task.startCall();
  let text = '';
  const say = async (piece: string) => {
    text += piece;
    await task.delta(piece);
  };
  await say('one ');

  const seen: TaskEvent[] = [];
  const outages: string[] = [];
  const follow = async () => {
    const onOutage = (error: Error) => void outages.push(error.message);
    for await (const event of createGatewayClient(gateway).follow('killed-1', { onOutage })) seen.push(event);
  };
  const followed = follow();
  const tail = shell.start(['tail', 'killed-1', '--url', gateway.url]);
  const bothHave = (piece: string) =>
    eventually(() => {
      expect(textOf(seen)).toContain(piece);
      expect(tail.output()).toContain(piece);
    }, 30_000);

  await bothHave('one ');
  await gateway.kill();
  await say('two 🌊 '); // while nobody serves it
  await eventually(() => {
    expect(outages.length).toBeGreaterThanOrEqual(2);
    expect(tail.output()).toContain('trying again');
  });
  const second = await startGatewayProcess(test, env);
  await bothHave('two 🌊 ');
  await say('three ');
  await bothHave('three ');
  await second.kill();
  await using _third = await startGatewayProcess(test, env);
  await say('four');
  await task.completeCall(text);
  await task.end();
  await followed;

  expect(seen.map((event) => event.seq)).toEqual(seen.map((_, index) => index + 1));
  expect(new Set(seen.map((event) => event.epoch)).size).toBe(1);
  expect(textOf(seen)).toBe(text);
  expect(seen.at(-1)?.type).toBe('stream_end');
  const { code, stdout } = await tail.done;
  expect({ code, stdout }).toEqual({ code: 0, stdout: `${text}\n` });
});
