import { describe, expect, it } from 'vitest';
import { type Reconnect, reconnectDelay } from '../../src/client/reconnect-delay.ts';

const QUIET: Reconnect = { tries: 0, retryMs: undefined, retryAfterMs: undefined, random: 0.5 };

/** What a thousand readers draw that lost the same gateway. */
const thousand = (of: Partial<Reconnect>) =>
  Array.from({ length: 1_000 }, (_, n) => reconnectDelay({ ...QUIET, ...of, random: n / 1_000 }));

describe('reconnectDelay', () => {
  it('grows with every try that came to nothing, up to seconds', () => {
    expect([0, 1, 2, 3, 4, 5, 6, 100, 5_000].map((tries) => reconnectDelay({ ...QUIET, tries }))).toEqual([
      100, 200, 400, 800, 1_600, 3_200, 5_000, 5_000, 5_000,
    ]);
  });

  it('spreads readers that were lost in one instant evenly over as much time as they wait', () => {
    const delays = thousand({ retryMs: 1_000 });
    expect([Math.min(...delays), Math.max(...delays)]).toEqual([500, 1_499]);
    for (let from = 500; from < 1_500; from += 100)
      expect(delays.filter((ms) => ms >= from && ms < from + 100)).toHaveLength(100);
  });

  it('begins with what the stream asked for, within what is sensible', () => {
    const told = (retryMs: number) => reconnectDelay({ ...QUIET, retryMs });
    expect([0, 50, 3_000, 20_000, 86_400_000].map(told)).toEqual([100, 100, 3_000, 20_000, 60_000]);
  });

  it('never comes back more often than the stream asked for because it tried before', () => {
    expect(reconnectDelay({ ...QUIET, retryMs: 20_000, tries: 9 })).toBe(20_000);
  });

  it('comes back after what a refusal asked for, and not in the very instant', () => {
    const delays = thousand({ retryAfterMs: 2_000 });
    expect(Math.min(...delays)).toBe(2_050);
    expect(new Set(delays).size).toBeGreaterThan(90);
    expect(reconnectDelay({ ...QUIET, retryAfterMs: 86_400_000 })).toBe(60_100);
  });
});
