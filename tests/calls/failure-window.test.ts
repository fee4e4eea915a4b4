import { describe, expect, it } from 'vitest';
import { createFailureWindow } from '../../src/calls/failure-window.ts';

describe('a window of failures', () => {
  const open = () => {
    const time = { ms: 0, intervalMs: 10_000 };
    const window = createFailureWindow(
      () => time.intervalMs,
      () => time.ms,
    );
    return { time, window };
  };

  it('counts calls and failures of the interval, and lets go of them within a twentieth of it', () => {
    const { time, window } = open();
    for (const failed of [true, false, true]) window.add(failed);
    expect(window.counts()).toEqual({ calls: 3, failures: 2 });
    time.ms = 9_999;
    window.add(true);
    expect(window.counts()).toEqual({ calls: 4, failures: 3 });
    time.ms = 10_000;
    expect(window.counts()).toEqual({ calls: 1, failures: 1 });
    time.ms = 19_999;
    expect(window.counts()).toEqual({ calls: 0, failures: 0 });
  });

  it('never counts a call of the interval before, whenever they come', () => {
    const { time, window } = open();
    let most = 0;
    for (time.ms = 0; time.ms < 100_000; time.ms += 7) {
      window.add(false);
      most = Math.max(most, window.counts().calls);
    }
    expect(most).toBeLessThanOrEqual(Math.ceil(10_000 / 7) + 1);
    expect(window.counts().calls).toBeGreaterThanOrEqual(Math.floor((10_000 * 19) / 20 / 7) - 1);
  });

  it('goes by the interval of the moment', () => {
    const { time, window } = open();
    window.add(true);
    time.ms = 3_000;
    window.add(true);
    time.intervalMs = 1_000;
    expect(window.counts()).toEqual({ calls: 1, failures: 1 });
  });

  it('begins anew when it is cleared', () => {
    const { window } = open();
    window.add(true);
    window.clear();
    expect(window.counts()).toEqual({ calls: 0, failures: 0 });
  });
});
