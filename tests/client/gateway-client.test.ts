// The gateway's client against a server that behaves as badly as networks and restarts do.

import { describe, expect, it } from 'vitest';
import { createGatewayClient, GatewayError } from '../../src/client/gateway-client.ts';
import type { TaskEvent } from '../../src/task/event.ts';
import {
  type Answer,
  openStream,
  sendEvent,
  sendJson,
  sendProblem,
  startTinyGateway,
} from './tiny-gateway.ts';

async function collect(events: AsyncIterable<TaskEvent>): Promise<TaskEvent[]> {
  const all: TaskEvent[] = [];
  for await (const event of events) all.push(event);
  return all;
}

async function failureOf(work: Promise<unknown>): Promise<GatewayError> {
  try {
    await work;
  } catch (error) {
    if (error instanceof GatewayError) return error;
    throw error;
  }
  throw new Error('it did not fail');
}

/** Resolves when a figure has not moved for some rounds of the event loop's timers. */
async function untilStill(figure: () => number): Promise<void> {
  let last = -1;
  for (let still = 0; still < 10; still += 1) {
    if (figure() !== last) still = 0;
    last = figure();
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

const numbers = (events: readonly TaskEvent[]) => events.map(({ seq }) => seq);
const types = (events: readonly TaskEvent[]) => events.map(({ type }) => type);

describe('requests', () => {
  it('submits a task with its id and the key', async () => {
    await using server = await startTinyGateway((response) =>
      sendJson(response, 202, { taskId: 't 1', status: 'queued', links: {} }),
    );
    const client = createGatewayClient({ url: `${server.url}/`, apiKey: 'secret' });
    expect((await client.submit({ userId: 'ada', query: 'hello' }, { taskId: 't:1' })).taskId).toBe('t 1');
    expect(server.asked[0]).toMatchObject({
      method: 'POST',
      path: '/api/v1/tasks?taskId=t%3A1',
      headers: { authorization: 'Bearer secret', 'content-type': 'application/json' },
      body: '{"userId":"ada","query":"hello"}',
    });
  });

  it('asks every route as the design names it', async () => {
    await using server = await startTinyGateway((response) => sendJson(response, 200, {}));
    const client = createGatewayClient(server);
    await client.list({ userId: 'ada', status: 'failed', limit: 5, cursor: 'c/1' });
    await client.get('a@b');
    await client.cancel('t1');
    await client.budgets.get('user', 'ada', { tenantId: 'acme' });
    await client.budgets.set('user', 'ada', [{ unit: 'usd', amount: '5.00' }]);
    await client.budgets.remove('task', 't1');
    await client.budgets.explain('tenant', 'acme');
    await client.budgets.list({ scope: 'session', tenantId: 'acme', limit: 5 });
    await client.budgets.list();
    await client.explain('t/1');
    await client.queues();
    await client.usage({ group: ['task', 'model'], user: 'ada' });
    await client.usageCsv({ day: '2026-01-31', limit: 5 });
    await client.rerate({ from: '2026-01-01', to: '2026-02-01', dryRun: true });
    await client.eraseTexts('acme', 'ada');
    expect(server.asked.map(({ method, path }) => `${method} ${path}`)).toEqual([
      'GET /api/v1/tasks?user=ada&status=failed&limit=5&cursor=c%2F1',
      'GET /api/v1/tasks/a%40b',
      'POST /api/v1/tasks/t1/cancel',
      'GET /api/v1/budgets/user/ada?tenantId=acme',
      'PUT /api/v1/budgets/user/ada',
      'DELETE /api/v1/budgets/task/t1',
      'GET /api/v1/budgets/tenant/acme/explain',
      'GET /api/v1/budgets?scope=session&tenantId=acme&limit=5',
      'GET /api/v1/budgets',
      'GET /api/v1/tasks/t%2F1/explain',
      'GET /api/v1/queues',
      'GET /api/v1/usage?group=task%2Cmodel&user=ada',
      'GET /api/v1/usage?day=2026-01-31&limit=5&format=csv',
      'POST /api/v1/usage/rerate',
      'DELETE /api/v1/texts?tenantId=acme&userId=ada',
    ]);
    expect(server.asked[4]?.body).toBe('{"limits":[{"unit":"usd","amount":"5.00"}]}');
  });

  it('throws the problem document with its status and faults', async () => {
    const faults = [{ path: 'budget.usd', expected: 'an amount', got: '-1' }];
    await using server = await startTinyGateway((response) =>
      sendProblem(response, 400, {
        type: 'InvalidTask',
        title: 'not valid',
        detail: 'budget.usd is wrong',
        faults,
      }),
    );
    const error = await failureOf(createGatewayClient(server).submit({}));
    expect(error.status).toBe(400);
    expect(error.problem).toMatchObject({ type: 'InvalidTask', status: 400, faults });
    expect(error.message).toBe('the gateway answered 400: budget.usd is wrong');
  });

  it("says the status of a proxy's page that is no problem document", async () => {
    await using server = await startTinyGateway(
      (response) => void response.writeHead(502, { 'content-type': 'text/html' }).end('<h1>bad gateway</h1>'),
    );
    const error = await failureOf(createGatewayClient(server).get('t1'));
    expect(error).toMatchObject({
      status: 502,
      problem: undefined,
      message: 'the gateway answered 502: Bad Gateway',
    });
  });

  it('tells something that is no gateway from one', async () => {
    await using server = await startTinyGateway((response) => void response.writeHead(200).end('<html>'));
    const error = await failureOf(createGatewayClient(server).list());
    expect(error.message).toContain('is no Weir gateway');
  });

  it('names the address and the reason when nothing answers', async () => {
    const gone = await startTinyGateway(() => undefined);
    await gone[Symbol.asyncDispose]();
    const error = await failureOf(createGatewayClient(gone).list());
    expect(error.message).toBe(`no gateway answers at ${gone.url} (ECONNREFUSED): is it running?`);
    expect(error.status).toBeUndefined();
  });

  it('gives up on an answer that takes too long', async () => {
    await using server = await startTinyGateway(() => undefined);
    const error = await failureOf(createGatewayClient({ url: server.url, timeoutMs: 100 }).list());
    expect(error.message).toMatch(/timeout/i);
  });

  it('refuses an address that is no URL before anything is sent', () => {
    for (const url of ['localhost:8080', 'ftp://x', ''])
      expect(() => createGatewayClient({ url })).toThrow(GatewayError);
  });
});

describe('follow', () => {
  it('answers the events in order and ends after stream_end', async () => {
    await using server = await startTinyGateway((response) => {
      openStream(response);
      sendEvent(response, 1, 'task_started');
      sendEvent(response, 2, 'call_delta', { data: { text: 'hi' } });
      sendEvent(response, 3, 'stream_end');
    });
    const events = await collect(createGatewayClient(server).follow('task-1'));
    expect(types(events)).toEqual(['task_started', 'call_delta', 'stream_end']);
    expect(events[1]?.data).toEqual({ text: 'hi' });
    expect(server.asked).toHaveLength(1);
    expect(server.asked[0]?.path).toBe('/api/v1/tasks/task-1/stream');
    expect(server.asked[0]?.headers['last-event-id']).toBeUndefined();
  });

  it('comes back after the last whole event when the stream is cut in the middle of one', async () => {
    const answer: Answer = (response, _, count) => {
      openStream(response);
      if (count > 0) return void sendEvent(response, 3, 'stream_end');
      sendEvent(response, 1, 'task_started');
      sendEvent(response, 2, 'call_delta');
      response.write('id: 1-3\nevent: stream_end\ndata: {"half', () => response.destroy());
    };
    await using server = await startTinyGateway(answer);
    const outages: string[] = [];
    const events = await collect(
      createGatewayClient(server).follow('task-1', { onOutage: (error) => outages.push(error.message) }),
    );
    expect(numbers(events)).toEqual([1, 2, 3]);
    expect(server.asked.map(({ headers }) => headers['last-event-id'])).toEqual([undefined, '1-2']);
    expect(outages).toHaveLength(1);
    expect(outages[0]).toContain('was lost');
  });

  it('comes back when the stream ends before the task does', async () => {
    await using server = await startTinyGateway((response, _, count) => {
      openStream(response);
      sendEvent(response, count + 1, count === 2 ? 'stream_end' : 'call_delta');
      response.end();
    });
    expect(numbers(await collect(createGatewayClient(server).follow('task-1')))).toEqual([1, 2, 3]);
    expect(server.asked.map(({ headers }) => headers['last-event-id'])).toEqual([undefined, '1-1', '1-2']);
  });

  it('goes on where it was when the gateway restarts', async () => {
    let kill: () => void = () => undefined;
    const first = await startTinyGateway((response) => {
      openStream(response);
      sendEvent(response, 1, 'task_started');
      kill = () => response.destroy();
    });
    const outages: string[] = [];
    const client = createGatewayClient(first);
    const numbersSeen: number[] = [];
    let second: Awaited<ReturnType<typeof startTinyGateway>> | undefined;
    const restart = async () => {
      second = await startTinyGateway((response) => {
        openStream(response);
        sendEvent(response, 2, 'stream_end');
      }, first.port);
    };
    let restarted: Promise<void> | undefined;
    const onOutage = (error: GatewayError) => {
      outages.push(error.message);
      // Back only after it was seen to be away.
      if (error.message.includes('ECONNREFUSED')) restarted ??= restart();
    };
    for await (const event of client.follow('task-1', { onOutage })) {
      numbersSeen.push(event.seq);
      if (event.seq === 1) {
        await first[Symbol.asyncDispose]();
        kill();
      }
    }
    await restarted;
    expect(numbersSeen).toEqual([1, 2]);
    expect(outages.some((message) => message.includes('ECONNREFUSED'))).toBe(true);
    expect(second?.asked.map(({ headers }) => headers['last-event-id'])).toEqual(['1-1']);
    await second?.[Symbol.asyncDispose]();
  });

  it('waits out a gateway that cannot serve at the moment', async () => {
    await using server = await startTinyGateway((response, _, count) => {
      if (count === 0) return sendProblem(response, 503, { type: 'Unavailable', title: 'away' });
      openStream(response);
      sendEvent(response, 1, 'stream_end');
    });
    expect(numbers(await collect(createGatewayClient(server).follow('task-1')))).toEqual([1]);
  });

  it('fails at once where there is no such task, no key or no gateway', async () => {
    await using server = await startTinyGateway((response, { path }) =>
      sendProblem(response, path.includes('missing') ? 404 : 401, { type: 'X', title: 'no' }),
    );
    const client = createGatewayClient(server);
    expect((await failureOf(collect(client.follow('missing')))).status).toBe(404);
    expect((await failureOf(collect(client.follow('other')))).status).toBe(401);
    expect(server.asked).toHaveLength(2);
    const nobody = createGatewayClient({ url: 'http://127.0.0.1:9' });
    expect((await failureOf(collect(nobody.follow('task-1')))).message).toContain('no gateway answers at');
  });

  it('fails when the task is gone after a break', async () => {
    await using server = await startTinyGateway((response, _, count) => {
      if (count > 0) return sendProblem(response, 404, { type: 'NotFound', title: 'gone' });
      openStream(response);
      sendEvent(response, 1, 'task_started');
      response.end();
    });
    expect((await failureOf(collect(createGatewayClient(server).follow('task-1')))).status).toBe(404);
  });

  it('starts after the given position, with the given types', async () => {
    await using server = await startTinyGateway((response) => {
      openStream(response);
      sendEvent(response, 8, 'stream_end');
    });
    const after = { epoch: 2, seq: 7 };
    await collect(createGatewayClient(server).follow('t', { after, types: ['task_started', 'call_delta'] }));
    expect(server.asked[0]?.headers['last-event-id']).toBe('2-7');
    expect(server.asked[0]?.path).toBe('/api/v1/tasks/t/stream?types=task_started%2Ccall_delta');
  });

  it.each([
    ['a text', '2-7'],
    ['an event', { taskId: 't', epoch: 2, seq: 7, type: 'call_delta', at: '2026-01-01T00:00:00.000Z' }],
  ])('starts after %s', async (_, after) => {
    await using server = await startTinyGateway((response) => {
      openStream(response);
      sendEvent(response, 8, 'stream_end');
    });
    await collect(createGatewayClient(server).follow('t', { after: after as string | TaskEvent }));
    expect(server.asked[0]?.headers['last-event-id']).toBe('2-7');
  });

  it.each(['', 'yesterday', '1-', '01-1', '1-9007199254740993'])('asks nobody after %j', async (after) => {
    await using server = await startTinyGateway((response) => sendJson(response, 200, {}));
    const error = await failureOf(collect(createGatewayClient(server).follow('t', { after })));
    expect(error.message).toBe(`"${after}" is no position of an event: expected one such as 1-42`);
    expect(server.asked).toEqual([]);
  });

  it('hands a reset to the caller and goes on from there', async () => {
    await using server = await startTinyGateway((response, _, count) => {
      openStream(response);
      if (count > 0) return void sendEvent(response, 1, 'stream_end');
      sendEvent(response, 0, 'reset', { message: 'told again' });
      response.end();
    });
    const events = await collect(createGatewayClient(server).follow('t', { after: '9-9' }));
    expect(types(events)).toEqual(['reset', 'stream_end']);
    expect(server.asked.map(({ headers }) => headers['last-event-id'])).toEqual(['9-9', '1-0']);
  });

  it('gives nothing out any more once its signal fired, not even what has come already', async () => {
    await using server = await startTinyGateway((response) => {
      openStream(response);
      const all = [1, 2, 3].map((seq) => `id: 1-${seq}\nevent: call_delta\ndata: {"seq":${seq}}\n\n`);
      response.write(all.join('')); // in one piece
    });
    const stop = new AbortController();
    const seen: number[] = [];
    const outages: GatewayError[] = [];
    const onOutage = (error: GatewayError) => void outages.push(error);
    for await (const event of createGatewayClient(server).follow('t', { signal: stop.signal, onOutage })) {
      seen.push(event.seq);
      stop.abort();
    }
    expect({ seen, outages }).toEqual({ seen: [1], outages: [] });
  });

  it('asks nobody when its signal fired before', async () => {
    await using server = await startTinyGateway((response) => sendJson(response, 200, {}));
    const signal = AbortSignal.abort();
    expect(await collect(createGatewayClient(server).follow('t', { signal }))).toEqual([]);
    expect(server.asked).toEqual([]);
  });

  it('ends without an error when its signal fires between two connections', async () => {
    await using server = await startTinyGateway((response) => {
      openStream(response);
      response.write('retry: 60000\n\n', () => response.end());
    });
    const stop = new AbortController();
    const onOutage = () => stop.abort();
    expect(await collect(createGatewayClient(server).follow('t', { signal: stop.signal, onOutage }))).toEqual(
      [],
    );
    expect(server.asked).toHaveLength(1);
  });

  it('does not read ahead of a caller that takes its time', async () => {
    let written = 0;
    await using server = await startTinyGateway((response) => {
      openStream(response);
      const text = 'x'.repeat(60_000);
      const fill = () => {
        // Far more than the buffers of two sockets hold.
        while (written < 1_000 && response.writable) {
          written += 1;
          const event = {
            seq: written,
            type: written === 1_000 ? 'stream_end' : 'call_delta',
            data: { text },
          };
          const isTaken = response.write(`id: 1-${written}\ndata: ${JSON.stringify(event)}\n\n`);
          if (!isTaken) return void response.once('drain', fill);
        }
      };
      fill();
    });
    const seen: number[] = [];
    for await (const event of createGatewayClient(server).follow('t')) {
      if (seen.length === 0) await untilStill(() => written);
      if (seen.length === 0) expect(written).toBeLessThan(900);
      seen.push(event.seq);
    }
    expect(seen).toEqual(Array.from({ length: 1_000 }, (_, n) => n + 1));
  });

  it('refuses a stream whose event never ends', async () => {
    await using server = await startTinyGateway((response) => {
      openStream(response);
      const piece = 'x'.repeat(1_000_000);
      const fill = () => {
        response.write(piece, (error) => error ?? fill());
      };
      response.write('data: ', fill);
    });
    const error = await failureOf(collect(createGatewayClient(server).follow('t')));
    expect(error.message).toContain('is no stream of events');
    expect(server.asked).toHaveLength(1);
  });

  it('ends without events for a reader that has the last one', async () => {
    await using server = await startTinyGateway((response) => void response.writeHead(204).end());
    const after = { epoch: 1, seq: 9 };
    expect(await collect(createGatewayClient(server).follow('t', { after }))).toEqual([]);
    expect(server.asked).toHaveLength(1);
  });

  it('does not go back to an older position when an event carries no id', async () => {
    await using server = await startTinyGateway((response, _, count) => {
      openStream(response);
      if (count === 0) sendEvent(response, 4, 'call_delta');
      if (count === 1) response.write('event: reset\ndata: {"seq":0,"type":"reset"}\n\n');
      if (count === 2) sendEvent(response, 5, 'stream_end');
      response.end();
    });
    await collect(createGatewayClient(server).follow('t'));
    expect(server.asked.map(({ headers }) => headers['last-event-id'])).toEqual([undefined, '1-4', '1-4']);
  });

  it('ends without an error when its signal fires, and closes the connection', async () => {
    const closed = Promise.withResolvers<void>();
    await using server = await startTinyGateway((response) => {
      response.on('close', () => closed.resolve());
      openStream(response);
      sendEvent(response, 1, 'task_started');
    });
    const stop = new AbortController();
    const seen: number[] = [];
    for await (const event of createGatewayClient(server).follow('t', { signal: stop.signal })) {
      seen.push(event.seq);
      stop.abort();
    }
    await closed.promise;
    expect(seen).toEqual([1]);
  });

  it('closes the connection of a reader that leaves', async () => {
    const closed = Promise.withResolvers<void>();
    await using server = await startTinyGateway((response) => {
      response.on('close', () => closed.resolve());
      openStream(response);
      sendEvent(response, 1, 'task_started');
    });
    for await (const event of createGatewayClient(server).follow('t')) if (event.seq === 1) break;
    await closed.promise;
    expect(server.asked).toHaveLength(1);
  });

  it('refuses an answer that is no event stream', async () => {
    await using server = await startTinyGateway((response) => sendJson(response, 200, {}));
    const error = await failureOf(collect(createGatewayClient(server).follow('t')));
    expect(error.message).toContain('expected an event stream, got application/json');
  });
});
