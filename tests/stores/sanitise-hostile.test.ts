// A hundred thousand hostile payloads through the sanitiser and into a real table of jsonb, in batches as milestones are written: none
// may poison its batch, be too large, or show a secret. WEIR_HOSTILE_SEED repeats a run.

import { randomInt } from 'node:crypto';
import { expect, it } from 'vitest';
import { sanitise } from '../../src/stores/sanitise.ts';
import { createRandom } from '../model/random.ts';
import { openTestStores } from '../support/stores.ts';
import { type HostilePayload, hostilePayload } from './hostile-payloads.ts';

const SEED = Number(process.env['WEIR_HOSTILE_SEED'] ?? randomInt(2 ** 31));
const PAYLOADS = 100_000;
const PER_BATCH = 500;
/** All texts may be control characters, which JSON writes six times as long. */
const MAX_JSON = 6 * 65_536;
const MAX_DEPTH = 8;

function depthOf(value: unknown): number {
  if (typeof value !== 'object' || value === null) return 0;
  return 1 + Math.max(0, ...Object.values(value).map(depthOf));
}

/** The payload as JSON, and what is wrong with it. */
function look({ value, hidden }: HostilePayload): {
  readonly json: string;
  readonly faults: readonly string[];
} {
  const safe = sanitise(value);
  const json = JSON.stringify(safe);
  const again = JSON.stringify(sanitise(safe));
  const faults = [
    ...(again === json ? [] : [`is changed by a second time: ${difference(json, again)}`]),
    ...(json.length > MAX_JSON ? [`has ${json.length} characters`] : []),
    ...(depthOf(safe) > MAX_DEPTH ? [`is ${depthOf(safe)} deep`] : []),
    ...hidden.filter((piece) => json.includes(piece)).map((piece) => `shows ${around(json, piece)}`),
  ];
  return { json, faults };
}

function difference(one: string, other: string): string {
  let at = 0;
  while (one[at] === other[at]) at += 1;
  const from = Math.max(0, at - 60);
  return `${one.slice(from, at + 40)} | ${other.slice(from, at + 40)}`;
}

function around(json: string, piece: string): string {
  const at = json.indexOf(piece);
  return json.slice(Math.max(0, at - 60), at + 40);
}

it('stores a hundred thousand hostile payloads, bounded, without a secret, and the same the second time', {
  timeout: 300_000,
}, async () => {
  await using test = await openTestStores();
  await test.postgres.query('create unlogged table hostile (n int, body jsonb not null)');
  const random = createRandom(SEED);
  let stored = 0;
  for (let batch = 0; batch < PAYLOADS / PER_BATCH; batch += 1) {
    const looked = Array.from({ length: PER_BATCH }, () => look(hostilePayload(random)));
    for (const [index, { faults }] of looked.entries())
      expect(faults, `seed ${SEED}, payload ${batch * PER_BATCH + index}`).toEqual([]);
    const { rows } = await test.postgres.query<{ n: string }>(
      `with written as (insert into hostile select n, body from unnest($1::jsonb[]) with ordinality as h (body, n) returning 1)
       select count(*) as n from written`,
      [looked.map(({ json }) => json)],
    );
    stored += Number(rows[0]?.n);
    await test.postgres.query('truncate hostile');
  }
  expect(stored).toBe(PAYLOADS);
});
