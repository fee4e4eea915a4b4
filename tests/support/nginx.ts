// nginx as a process of one test, with the configuration that the example ships: only its ports and its folder for files are other ones.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { eventually } from './eventually.ts';

const EXAMPLE = fileURLToPath(new URL('../../examples/follow/', import.meta.url));

export type Nginx = AsyncDisposable & { readonly url: string };

/** @param upstreamPort where the gateway is on 127.0.0.1. @param change of the configuration, for a test that wants it otherwise */
export async function startNginx(
  program: string,
  upstreamPort: number,
  change: (config: string) => string = (config) => config,
): Promise<Nginx> {
  const folder = await mkdtemp(join(tmpdir(), 'weir-nginx-'));
  const port = await freePort();
  const shipped = await readFile(join(EXAMPLE, 'nginx.conf'), 'utf8');
  const config = change(
    shipped
      .replaceAll('/tmp/weir-follow', join(folder, 'nginx'))
      .replaceAll('127.0.0.1:8080', `127.0.0.1:${upstreamPort}`)
      .replaceAll('127.0.0.1:8090', `127.0.0.1:${port}`),
  );
  await writeFile(join(folder, 'nginx.conf'), config);
  // As root its workers would be another user, who may not read the checkout.
  const asRoot = process.getuid?.() === 0 ? ['-g', 'user root;'] : [];
  const child = spawn(program, ['-p', EXAMPLE, '-c', join(folder, 'nginx.conf'), ...asRoot], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let output = '';
  const keep = (chunk: Buffer) => {
    output = (output + chunk.toString()).slice(-5_000);
  };
  child.stdout.on('data', keep);
  child.stderr.on('data', keep);
  const exit = once(child, 'exit');
  const stop = async () => {
    child.kill('SIGTERM');
    await exit;
    await rm(folder, { recursive: true, force: true });
  };
  try {
    await eventually(() => {
      if (child.exitCode !== null) return; // said below
      return answers(port);
    });
    if (child.exitCode !== null) throw new Error('it ended');
  } catch (cause) {
    await stop();
    throw new Error(`nginx did not start:\n${output}`, { cause });
  }
  return { url: `http://127.0.0.1:${port}`, [Symbol.asyncDispose]: stop };
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  server.close();
  await once(server, 'close');
  if (typeof address !== 'object' || address === null) throw new Error('the system gave no port');
  return address.port;
}

async function answers(port: number): Promise<void> {
  const socket = connect(port, '127.0.0.1');
  try {
    await once(socket, 'connect'); // rejects with what the system says
  } finally {
    socket.destroy();
  }
}
