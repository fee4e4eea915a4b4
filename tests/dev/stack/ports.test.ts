// Ports on a machine where others take them too, at the worst moment.
import { once } from 'node:events';
import { createServer, type Server } from 'node:net';
import { afterEach, expect, test } from 'vitest';
import { listensOn } from '../../../dev/stack/listens-on.ts';
import { isFree, Ports, type PortWish } from '../../../dev/stack/ports.ts';
import { PortTakenError } from '../../../dev/stack/stack-error.ts';

const open: Server[] = [];
const lines: string[] = [];

afterEach(() => {
  for (const server of open.splice(0)) server.close();
  lines.length = 0;
});

test('gives two parts that ask at once two ports, in a row where they want one', async () => {
  const first = await aFreePort();
  const ports = newPorts();
  const chosen = await Promise.all([take(ports, wish(first, 'next')), take(ports, wish(first, 'next'))]);
  expect(new Set(chosen).size).toBe(2);
  expect(chosen.every((port) => port >= first)).toBe(true);
});

test('tries another port when the first was taken between the check and the start', async () => {
  const tried: number[] = [];
  const preferred = await aFreePort();
  const port = await newPorts().use([wish(preferred, 'any')], async ([given = 0]) => {
    tried.push(given);
    if (tried.length === 1) throw new PortTakenError('somebody was quicker');
    return given;
  });
  expect(tried).toEqual([preferred, port]);
  expect(lines).toEqual([`port ${preferred} is taken: a part is on ${port}`]);
});

test('keeps a part that may not move on its port, and says what it said', async () => {
  const failing = newPorts().use([wish(4711, 'stay')], () => Promise.reject(new PortTakenError('no')));
  await expect(failing).rejects.toThrow('no');
});

test('passes other failures on at once', async () => {
  let tries = 0;
  const failing = newPorts().use([wish(0, 'any')], () => {
    tries += 1;
    return Promise.reject(new Error('broken'));
  });
  await expect(failing).rejects.toThrow('broken');
  expect(tries).toBe(1);
});

test('tells who listens on a port', async () => {
  const port = await listenOnAnyPort();
  expect(await isFree(port)).toBe(false);
  expect(listensOn(process.pid, port)).toBe(true);
  // macOS does not tell: there the answer is always yes
  expect(listensOn(process.ppid, port)).toBe(process.platform !== 'linux');
});

function newPorts(): Ports {
  return new Ports((line) => void lines.push(line));
}

function wish(preferred: number, otherwise: PortWish['otherwise']): PortWish {
  return { what: 'a part', preferred, otherwise };
}

function take(ports: Ports, wanted: PortWish): Promise<number> {
  return ports.use([wanted], async ([port = 0]) => port);
}

async function listenOnAnyPort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  open.push(server);
  await once(server, 'listening');
  const address = server.address();
  return typeof address === 'object' && address !== null ? address.port : 0;
}

/** Free when it was looked at: nobody else is told about it. */
async function aFreePort(): Promise<number> {
  const port = await listenOnAnyPort();
  const server = open.pop();
  if (server !== undefined) await new Promise((resolve) => server.close(resolve));
  return port;
}
