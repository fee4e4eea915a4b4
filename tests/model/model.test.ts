// The scripts of the gate, the governed call and the reaper against a plain model of what must be true, while everything around them is
// killed, frozen, repeated, lost and emptied between any two steps. WEIR_MODEL_SEEDS=100000 runs more, WEIR_MODEL_FROM=… others,
// WEIR_MODEL_SEED=… one of them with its steps.

import { randomBytes } from 'node:crypto';
import { Redis as Client } from 'ioredis';
import { expect, inject, it } from 'vitest';
import { NAMED_SEEDS } from './named-seeds.ts';
import { runSeed } from './run-seed.ts';
import { runSeeds } from './run-seeds.ts';
import { installVirtualTime } from './virtual-time.ts';

const SEEDS = Number(process.env['WEIR_MODEL_SEEDS'] ?? 5_000);
const FROM = Number(process.env['WEIR_MODEL_FROM'] ?? 1);
const ONE = process.env['WEIR_MODEL_SEED'];
/** A slow machine takes this long for a seed. */
const MS_PER_SEED = 400;

const newPrefix = () => `model-${randomBytes(4).toString('hex')}`;

function* range(from: number, count: number): Generator<number> {
  for (let seed = from; seed < from + count; seed += 1) yield seed;
}

it.runIf(ONE === undefined && NAMED_SEEDS.length > 0)('keeps what seeds once found mended', async () => {
  const seeds = NAMED_SEEDS.map(({ seed }) => seed);
  const { failures } = await runSeeds(inject('servers').redis, seeds, { prefix: newPrefix() });
  expect(failures.join('\n\n')).toBe('');
});

it('plays the same run for the same seed', async () => {
  using _ = installVirtualTime();
  const client = new Client(inject('servers').redis);
  const seed = Number(ONE ?? FROM + 6);
  const options = { client, isTraced: true };
  const first = await runSeed(seed, { ...options, prefix: newPrefix() });
  const second = await runSeed(seed, { ...options, prefix: newPrefix() });
  client.disconnect();
  // Tokens of rebuilds come from the system's own chance; nothing may depend on them.
  const steps = (trace: readonly string[]) =>
    trace.map((line) => line.replace(/(?<=hydrate-\w+ )\S{16}/, ''));
  expect(steps(second.trace)).toEqual(steps(first.trace));
  expect(first.trace.length).toBeGreaterThan(50);
});

it(
  'keeps limits, charges every request once and leaves nothing held, whatever fails when',
  async () => {
    const seeds = ONE === undefined ? range(FROM, SEEDS) : [Number(ONE)];
    const report = await runSeeds(inject('servers').redis, seeds, { prefix: newPrefix() });
    expect(report.failures.join('\n\n')).toBe('');
    if (ONE !== undefined) return;
    // A run in which nothing happens finds nothing.
    expect(report.requests).toBeGreaterThan(report.runs);
    expect(report.ends['completed']).toBeGreaterThan(report.runs);
    expect(report.ends['refuse']).toBeGreaterThan(report.runs / 4);
  },
  30_000 + SEEDS * MS_PER_SEED,
);
