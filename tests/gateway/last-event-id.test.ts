// Positions that no honest reader sends, over a real socket: each is told `reset` or refused, and none is ever told of another task.

import { connect } from 'node:net';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { TaskEvent } from '../../src/task/event.ts';
import { createStoredTask, textOf } from './events.ts';
import { openTestGateway, type TestGateway } from './open-gateway.ts';

const OWN = { taskId: 'own-1', text: 'the text of this task' };
const TOLD = 'task_started step_started call_started call_delta call_completed task_completed stream_end';

let gateway: TestGateway;
let port: number;

beforeAll(async () => {
  gateway = await openTestGateway();
  port = Number(new URL(await gateway.listen()).port);
  // Another task beside it, with more events and a run more: every number of the first is one of the second as well.
  await tell(OWN.taskId, OWN.text, 'run-1');
  await tell('other-1', 'nobody else may read this', 'run-1');
  await tell('other-1', 'nor this', 'run-2');
});
afterAll(() => gateway[Symbol.asyncDispose]());

async function tell(taskId: string, text: string, runId: string): Promise<void> {
  const task = createStoredTask(gateway.test, taskId, runId);
  await task.begin();
  await task.startCall();
  await task.delta(text);
  await task.completeCall(text);
  await task.end();
}

type Answer = { readonly status: number; readonly events: readonly TaskEvent[] };

/** One request in bytes as they are given, read until the server closes. */
async function ask(lines: readonly (string | Buffer)[], query = ''): Promise<Answer> {
  const head = `GET /api/v1/tasks/${OWN.taskId}/stream${query} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n`;
  const socket = connect(port, '127.0.0.1');
  // A head that is too long is refused while it is still being sent.
  socket.on('error', () => undefined);
  const closed = new Promise<string>((resolve) => {
    let received = '';
    socket.on('data', (chunk) => {
      received += chunk.toString();
    });
    socket.once('close', () => resolve(received));
  });
  socket.write(head);
  for (const line of lines) socket.write(typeof line === 'string' ? Buffer.from(line) : line);
  socket.write('\r\n');
  const received = await closed;
  const status = Number(/^HTTP\/1\.1 (\d{3})/.exec(received)?.[1]);
  const events = [...received.matchAll(/^data: (.+)$/gm)].map(
    ([, data]) => JSON.parse(data ?? '') as TaskEvent,
  );
  return { status, events };
}

const header = (value: string) => [`Last-Event-ID: ${value}\r\n`];
const bytes = (...values: number[]) => [Buffer.from('last-event-id: '), Buffer.from(values), '\r\n'];

/** None of what is answered belongs to anybody else; a stream that comes is whole. */
function assertOwn({ events }: Answer): void {
  expect(events.filter(({ taskId }) => taskId !== OWN.taskId)).toEqual([]);
  expect(textOf(events)).not.toContain('nobody else');
}

describe('a position that cannot be honoured', () => {
  it.each([
    ['of an old epoch', '0-3'],
    ['of a future epoch', '9-1'],
    ['of the highest epoch there can be', '9999999999-1'],
    ["of the other task's epoch", '2-14'],
    ['with a number of the future', '1-8'],
    ["with a number of the other task's", '1-13'],
    ['with the highest number there can be', '1-999999999999999'],
  ])('%s is told that everything comes again', async (_, position) => {
    for (const answer of [await ask(header(position)), await ask([], `?after=${position}`)]) {
      expect(answer.status).toBe(200);
      expect(answer.events.map(({ type }) => type).join(' ')).toBe(`reset ${TOLD}`);
      expect(textOf(answer.events)).toBe(OWN.text);
      assertOwn(answer);
    }
  });
});

describe('what is no position', () => {
  it.each<[string, readonly (string | Buffer)[]]>([
    ['words', header('yesterday')],
    ['a number alone', header('3')],
    ['a negative number', header('1--3')],
    ['a negative epoch', header('-1-3')],
    ['a power of ten', header('1-1e3')],
    ['a fraction', header('1-1.0')],
    ['leading zeros', header('01-03')],
    ['a hexadecimal number', header('0x1-0x3')],
    ['2^53 + 1', header('1-9007199254740993')],
    ['an epoch beyond its digits', header('10000000000-1')],
    ['two positions in one', header('1-1-3')],
    ["another task's id before it", header('other-1:1-3')],
    ['a wildcard', header('*')],
    ['a range of the ring', header('-')],
    ['everything of the ring', header('$')],
    ['digits of another script', header('١-٣')],
    ['digits of full width', header('１-３')],
    ['a Redis command', header('1-1\tFLUSHALL')],
    ['SQL', header("1-1' or '1'='1")],
    ['bytes that are no UTF-8', bytes(0x31, 0x2d, 0xff, 0xfe)],
    ['NUL', bytes(0x31, 0x2d, 0x31, 0)],
    ['NUL alone', bytes(0)],
    ['a line break inside it', bytes(0x31, 0x2d, 0x31, 0x0d, 0x31)],
    ['several headers', [...header('1-1'), ...header('1-2')]],
    ['several headers, one of them garbage', [...header('1-1'), ...header('x')]],
  ])('is refused: %s', async (_, lines) => {
    const answer = await ask(lines);
    expect(answer.status).toBe(400);
    expect(answer.events).toEqual([]);
  });

  it.each([
    'yesterday',
    '-1-3',
    '01-3',
    '1-1e3',
    '1-9007199254740993',
    '1%00-3',
    '%D9%A1-3',
    '1-1&after=1-2',
  ])('is refused in the query: %s', async (after) => {
    const answer = await ask([], `?after=${after}`);
    expect(answer.status).toBe(400);
    expect(answer.events).toEqual([]);
  });

  it.each([
    ['digits', '1'],
    ['positions', '1-1,'],
  ])('is refused: ten megabytes of %s', async (_, piece) => {
    const answer = await ask(header(piece.repeat(10_485_760 / piece.length)));
    expect(answer.status).toBe(431);
    expect(answer.events).toEqual([]);
  });
});

describe('a position that can be honoured', () => {
  it.each([
    ['goes on after it', '1-4', 'call_completed task_completed stream_end'],
    ['is read without the blanks around it', '  1-6  ', 'stream_end'],
    ['may be before the first event', '1-0', TOLD],
    ['is none where the header is empty', '', TOLD],
  ])('%s', async (_, position, types) => {
    const answer = await ask(header(position));
    expect(answer.status).toBe(200);
    expect(answer.events.map(({ type }) => type).join(' ')).toBe(types);
    assertOwn(answer);
  });

  it('is answered with 204 where it is the last', async () => {
    expect(await ask(header('1-7'))).toEqual({ status: 204, events: [] });
  });

  it('begins with the present run where the id was used before', async () => {
    const response = await fetch(`http://127.0.0.1:${port}/api/v1/tasks/other-1/stream`, {
      headers: { 'last-event-id': '1-2' },
    });
    const text = await response.text();
    expect(text).toContain('event: reset');
    expect(text).toContain('nor this');
    expect(text).not.toContain('nobody else');
  });
});
