// `weir tail` as a process against a stand-in of the gateway: what a person sees of a stream that breaks, begins anew, or is left.

import { describe, expect, it } from 'vitest';
import { openStream, sendEvent, sendProblem, startTinyGateway } from '../client/tiny-gateway.ts';
import { eventually } from '../support/eventually.ts';
import { openShell } from './run-weir.ts';

const CALL = { callKey: 'c1', attempt: 'c1#0' };
const text = (piece: string, of: object = CALL) => ({ ...of, data: { text: piece } });

describe('weir tail', () => {
  it('writes of a text that is told again only what is new', async () => {
    await using server = await startTinyGateway((response) => {
      openStream(response);
      sendEvent(response, 1, 'call_started', CALL);
      sendEvent(response, 2, 'call_delta', text('one '));
      sendEvent(response, 5, 'call_snapshot', text('one two three '));
      sendEvent(response, 6, 'call_delta', text('four'));
      sendEvent(response, 7, 'call_completed', CALL);
      sendEvent(response, 8, 'stream_end', { data: { status: 'completed' } });
    });
    await using shell = await openShell();
    const { code, stdout } = await shell.weir(['tail', 'task-1', '--url', server.url]);
    expect({ code, stdout }).toEqual({ code: 0, stdout: 'one two three four\n' });
  });

  it('begins a line for a text that is another one: a new attempt, a snapshot that differs, another call', async () => {
    await using server = await startTinyGateway((response) => {
      openStream(response);
      sendEvent(response, 1, 'call_delta', text('lost'));
      sendEvent(response, 2, 'attempt_reset', CALL);
      sendEvent(response, 3, 'call_delta', text('again'));
      sendEvent(response, 4, 'call_snapshot', text('differs'));
      sendEvent(response, 5, 'call_delta', text('other', { callKey: 'c2' }));
      sendEvent(response, 6, 'stream_end', { data: { status: 'completed' } });
    });
    await using shell = await openShell();
    const { stdout } = await shell.weir(['tail', 'task-1', '--url', server.url]);
    expect(stdout).toBe('lost\nagain\ndiffers\nother\n');
  });

  it('tells the whole again after a reset, and says why', async () => {
    await using server = await startTinyGateway((response) => {
      openStream(response);
      sendEvent(response, 0, 'reset', { message: 'the position 9-9 is not one of the present stream' });
      sendEvent(response, 1, 'call_delta', text('all of it'));
      sendEvent(response, 2, 'stream_end', { data: { status: 'completed' } });
    });
    await using shell = await openShell();
    const { stdout, stderr } = await shell.weir(['tail', 'task-1', '--after', '9-9', '--url', server.url]);
    expect(server.asked[0]?.headers['last-event-id']).toBe('9-9');
    expect(stdout).toBe('all of it\n');
    expect(stderr).toContain('· reset  the position 9-9');
  });

  it('asks how the task ended where it has every event already', async () => {
    await using server = await startTinyGateway((response, { path }) => {
      if (path.includes('/stream')) return void response.writeHead(204).end();
      response.writeHead(200, { 'content-type': 'application/json' }).end('{"status":"failed"}');
    });
    await using shell = await openShell();
    const { code, stdout } = await shell.weir(['tail', 'task-1', '--after', '1-9', '--url', server.url]);
    expect({ code, stdout }).toEqual({ code: 1, stdout: '' });
  });

  it('ends with one line and 1 where there is no such task', async () => {
    await using server = await startTinyGateway((response) =>
      sendProblem(response, 404, { type: 'NotFound', title: 'there is no task nobody' }),
    );
    await using shell = await openShell();
    const { code, stderr } = await shell.weir(['tail', 'nobody', '--url', server.url]);
    expect({ code, stderr }).toEqual({
      code: 1,
      stderr: 'weir: the gateway answered 404: there is no task nobody\n',
    });
  });

  it.each([
    ['while text comes', [], 'half'],
    ['as JSON lines', ['--json'], '"half"'],
  ])('leaves at Ctrl-C %s with 130, and says how to go on', async (_, flags, shown) => {
    await using server = await startTinyGateway((response) => {
      openStream(response);
      sendEvent(response, 7, 'call_delta', text('half'));
    });
    await using shell = await openShell();
    const tail = shell.start(['tail', 'task-1', ...flags, '--url', server.url]);
    await eventually(() => expect(tail.output()).toContain(shown));
    tail.child.kill('SIGINT');
    const { code, stderr, stdout } = await tail.done;
    expect(code).toBe(130);
    expect(stderr).toBe('· task-1 goes on: weir tail task-1 --after 1-7\n');
    expect(stdout.endsWith('\n')).toBe(true);
  });

  it('leaves at Ctrl-C while the gateway is away', async () => {
    await using server = await startTinyGateway((response, _, count) => {
      if (count > 0) return sendProblem(response, 503, { type: 'Unavailable', title: 'away' });
      openStream(response);
      response.write('retry: 60000\n\n', () => response.end());
    });
    await using shell = await openShell();
    const tail = shell.start(['tail', 'task-1', '--url', server.url]);
    await eventually(() => expect(tail.output()).toContain('trying again'));
    tail.child.kill('SIGINT');
    const { code, stderr } = await tail.done;
    expect(code).toBe(130);
    expect(stderr).toContain('· task-1 goes on: weir tail task-1\n');
  });
});
