// How a limit is learnt and recovers, on a clock that the test moves; and that the script computes what the pure rule says.

import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  cutLimit,
  effectiveLimit,
  type LearntLimit,
  readLearnt,
  statedLimit,
  writeLearnt,
} from '../../src/stores/learnt-rule.ts';
import { loadScript } from '../../src/stores/redis.ts';
import { openTestStores, type TestStores } from '../support/stores.ts';

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;
const T0 = 1_800_000_000_000;

describe('what holds', () => {
  it.each<[string, LearntLimit | undefined, number, number, number]>([
    ['nothing learnt', undefined, 600, 0, 600],
    ['nothing learnt, nothing configured', undefined, 0, 0, 0],
    ['a statement above what is configured', { value: 9_000, ceiling: 9_000, atMs: T0 }, 600, 0, 600],
    ['a statement below it', { value: 60, ceiling: 60, atMs: T0 }, 600, 0, 60],
    ['the same an hour later', { value: 60, ceiling: 60, atMs: T0 }, 600, HOUR, 60],
    ['the same a day later', { value: 60, ceiling: 60, atMs: T0 }, 600, DAY, 60],
    ['a statement that nobody repeated', { value: 60, ceiling: 60, atMs: T0 }, 600, DAY + 2 * MINUTE, 180],
    ['a cut', { value: 420, atMs: T0 }, 600, 0, 420],
    ['a cut a minute later', { value: 420, atMs: T0 }, 600, MINUTE, 480],
    ['a cut an hour later', { value: 420, atMs: T0 }, 600, HOUR, 600],
    ['a cut below a statement, later', { value: 60, ceiling: 100, atMs: T0 }, 600, HOUR, 100],
    ['a clock that goes back', { value: 420, atMs: T0 }, 600, -HOUR, 420],
    ['a statement where nothing is configured', { value: 60, ceiling: 60, atMs: T0 }, 0, HOUR, 60],
    ['the same when nobody repeated it', { value: 60, ceiling: 60, atMs: T0 }, 0, DAY + 1, 0],
    ['a cut where nothing is configured', { value: 42, ceiling: 60, atMs: T0 }, 0, MINUTE, 48],
    ['less configured than before', { value: 420, atMs: T0 }, 100, 0, 100],
  ])('%s', (_, learnt, configured, laterMs, expected) => {
    expect(effectiveLimit(learnt, configured, T0 + laterMs)).toBeCloseTo(expected, 6);
  });
});

describe('what is learnt', () => {
  const stated = (learnt: LearntLimit | undefined, limit: number, nowMs = T0) =>
    statedLimit(learnt, limit, { configured: 600, nowMs });

  it('tightens at once', () => {
    expect(stated(undefined, 60)).toEqual({ value: 60, ceiling: 60, atMs: T0 });
    const before = { value: 600, ceiling: 600, atMs: T0 - HOUR / 2 };
    expect(stated(before, 60)).toEqual({ value: 60, ceiling: 60, atMs: T0 });
  });

  it('loosens from where it stands, not at once', () => {
    const raised = stated({ value: 60, ceiling: 60, atMs: T0 - MINUTE * 30 }, 600);
    expect(raised).toEqual({ value: 60, ceiling: 600, atMs: T0 });
    expect(effectiveLimit(raised, 600, T0 + 2 * MINUTE)).toBe(180);
  });

  it('changes nothing by a repetition, but for once an hour, when it grows no older', () => {
    const learnt = { value: 60, ceiling: 60, atMs: T0 };
    expect(stated(learnt, 60, T0 + HOUR - 1)).toBeUndefined();
    expect(stated(learnt, 60, T0 + HOUR)).toEqual({ ...learnt, atMs: T0 + HOUR });
  });

  it('cuts three tenths of what holds, and keeps what was stated', () => {
    expect(cutLimit(undefined, { configured: 600, nowMs: T0 })).toEqual({ value: 420, atMs: T0 });
    const learnt = { value: 100, ceiling: 100, atMs: T0 };
    expect(cutLimit(learnt, { configured: 600, nowMs: T0 })).toEqual({ value: 70, ceiling: 100, atMs: T0 });
    expect(cutLimit(undefined, { configured: 0, nowMs: T0 })).toBeUndefined();
  });

  it('never closes for good', () => {
    let learnt: LearntLimit | undefined;
    for (let n = 0; n < 100; n += 1) learnt = cutLimit(learnt, { configured: 600, nowMs: T0 }) ?? learnt;
    expect(learnt?.value).toBe(6);
    let least: LearntLimit | undefined;
    for (let n = 0; n < 100; n += 1) least = cutLimit(least, { configured: 2, nowMs: T0 }) ?? least;
    expect(least?.value).toBe(1);
  });
});

describe('recovery', () => {
  /** The limit after each of ten minutes, an answer a second stating what the provider allows. */
  function curve(from: LearntLimit, stated: number): number[] {
    let learnt = from;
    return Array.from({ length: 10 }, (_, minute) => {
      for (let second = 1; second <= 60; second += 1) {
        const nowMs = T0 + minute * MINUTE + second * 1_000;
        learnt = statedLimit(learnt, stated, { configured: 600, nowMs }) ?? learnt;
      }
      return Math.round(effectiveLimit(learnt, 600, T0 + (minute + 1) * MINUTE));
    });
  }

  it('reaches nine tenths of the limit within ten minutes of its being raised again', () => {
    const cut = { value: 60, ceiling: 60, atMs: T0 };
    expect(curve(cut, 600)).toEqual([119, 179, 239, 299, 359, 419, 479, 539, 599, 600]);
  });

  it('climbs from the floor to the whole limit without a word of the provider in ten minutes', () => {
    const floor: LearntLimit = { value: 6, atMs: T0 };
    const minutes = Array.from({ length: 10 }, (_, n) => effectiveLimit(floor, 600, T0 + (n + 1) * MINUTE));
    expect(minutes.map(Math.round)).toEqual([66, 126, 186, 246, 306, 366, 426, 486, 546, 600]);
  });

  it('stops at what the provider states', () => {
    const cut = { value: 42, ceiling: 60, atMs: T0 };
    expect(curve(cut, 60)).toEqual(Array.from({ length: 10 }, () => 60));
  });
});

describe('the script', () => {
  let test: TestStores;
  beforeAll(async () => {
    test = await openTestStores();
  });
  afterAll(() => test[Symbol.asyncDispose]());

  const preludes = loadScript('rate-limits', 'rate-learning').lua;
  const driver = `${preludes}
local answers = {}
for n = 1, #ARGV, 5 do
  local learnt, at = ARGV[n] ~= '' and ARGV[n], ARGV[n] ~= '' and ARGV[n + 1]
  local configured, nowMs, stated = tonumber(ARGV[n + 2]), tonumber(ARGV[n + 3]), tonumber(ARGV[n + 4])
  answers[#answers + 1] = { string.format('%.6f', limitOf(learnt, at, configured, nowMs)),
    statedLimit(learnt, at, stated, configured, nowMs) or '', cutLimit(learnt, at, configured, nowMs) or '' }
end
return answers`;

  it('computes what the pure rule says, over everything that may stand there', async () => {
    const values = [undefined, 1, 60, 420.123, 9_000];
    const ceilings = [undefined, 1, 100, 9_000];
    const ages = [-HOUR, 0, 999, MINUTE, HOUR, DAY, DAY + 3 * MINUTE, 30 * DAY];
    const cases = values.flatMap((value) =>
      (value === undefined ? [undefined] : ceilings).flatMap((ceiling) =>
        ages.flatMap((ageMs) =>
          [0, 1, 600].flatMap((configured) =>
            [1, 100, 9_000.5].map((limit) => ({ value, ceiling, ageMs, configured, limit })),
          ),
        ),
      ),
    );
    const asked = cases.map(({ value, ceiling, ageMs, configured, limit }) => ({
      learnt: value === undefined ? undefined : { value, ...(ceiling && { ceiling }), atMs: T0 - ageMs },
      configured,
      limit,
    }));
    const answers = (await test.redis.command((client) =>
      client.eval(
        driver,
        0,
        ...asked.flatMap(({ learnt, configured, limit }) => [
          ...(learnt === undefined ? ['', ''] : [writeLearnt(learnt), learnt.atMs]),
          ...[configured, T0, limit],
        ]),
      ),
    )) as string[][];
    for (const [index, { learnt, configured, limit }] of asked.entries()) {
      const [effective, stated, cut] = answers[index] ?? [];
      const at = { configured, nowMs: T0 };
      const wanted = {
        effective: effectiveLimit(learnt, configured, T0),
        stated: statedLimit(learnt, limit, at),
        cut: cutLimit(learnt, at),
      };
      const about = JSON.stringify({ learnt, configured, limit });
      expect(Number(effective), about).toBeCloseTo(wanted.effective, 4);
      expect(readLearnt(stated, String(T0))?.ceiling, about).toBe(wanted.stated?.ceiling);
      expect(readLearnt(stated, String(T0))?.value ?? 0, about).toBeCloseTo(wanted.stated?.value ?? 0, 2);
      expect(readLearnt(cut, String(T0))?.ceiling, about).toBe(wanted.cut?.ceiling);
      expect(readLearnt(cut, String(T0))?.value ?? 0, about).toBeCloseTo(wanted.cut?.value ?? 0, 2);
    }
    expect(cases.length).toBeGreaterThan(1_000);
  });
});
