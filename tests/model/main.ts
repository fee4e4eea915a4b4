// Plays many seeds on a Redis of its own: `npm run test:model -- --seeds 100000 [--from 1]`, or one with its steps: `-- --seed 42`.

import { spawn } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { Redis as Client } from 'ioredis';
import { findTool } from '../../dev/stack/tools.ts';
import { NAMED_SEEDS } from './named-seeds.ts';
import { runSeed } from './run-seed.ts';
import { runSeeds } from './run-seeds.ts';
import { installVirtualTime } from './virtual-time.ts';

const PROGRESS_EVERY = 5_000;

const { values } = parseArgs({
  options: {
    seeds: { type: 'string', default: '5000' },
    from: { type: 'string', default: '1' },
    seed: { type: 'string' },
    redis: { type: 'string' },
  },
});

await withRedis(values.redis, async (url) => {
  if (values.seed === undefined) await playMany(url, toCount(values.from), toCount(values.seeds));
  else await playOne(url, toCount(values.seed));
});

async function playMany(url: string, from: number, count: number): Promise<void> {
  const startedAt = performance.now();
  const onProgress = (runs: number) => {
    if (runs % PROGRESS_EVERY === 0) write(`${runs} seeds`);
  };
  function* seeds(): Generator<number> {
    for (const { seed } of NAMED_SEEDS) yield seed;
    for (let seed = from; seed < from + count; seed += 1) yield seed;
  }
  const { failures, ...figures } = await runSeeds(url, seeds(), { prefix: 'model', onProgress });
  for (const failure of failures) write(`\n${failure}`);
  const seconds = ((performance.now() - startedAt) / 1000).toFixed(1);
  write(`${JSON.stringify(figures)} in ${seconds} s: ${failures.length} failed`);
  process.exitCode = failures.length > 0 || figures.runs === 0 ? 1 : 0;
}

async function playOne(url: string, seed: number): Promise<void> {
  const client = new Client(url);
  using _ = installVirtualTime();
  const { trace, violation } = await runSeed(seed, { client, prefix: 'model', isTraced: true });
  client.disconnect();
  write([...trace, violation ?? 'nothing was violated'].join('\n'));
  process.exitCode = violation === undefined ? 0 : 1;
}

/** A given one, or one that keeps nothing and is heard through a file. */
async function withRedis(given: string | undefined, work: (url: string) => Promise<void>): Promise<void> {
  if (given !== undefined) return work(given);
  const folder = await mkdtemp(join(tmpdir(), 'weir-model-'));
  const socket = join(folder, 'redis.sock');
  const flags = ['--port', '0', '--unixsocket', socket, '--save', '', '--appendonly', 'no', '--dir', folder];
  const server = spawn(findTool('redis', []), flags, { stdio: 'ignore' });
  const ended = new Promise((resolve) => server.once('exit', resolve));
  try {
    await work(socket);
  } finally {
    server.kill('SIGTERM');
    await ended;
    await rm(folder, { recursive: true, force: true });
  }
}

function toCount(text: string): number {
  const count = Number(text);
  if (!Number.isSafeInteger(count) || count < 0) throw new Error(`not a count: ${text}`);
  return count;
}

function write(text: string): void {
  process.stdout.write(`${text}\n`);
}
