// The breaker on spend refuses early what the limit would refuse, and nothing else.

import { describe, expect, it } from 'vitest';
import { createSpendBreaker } from '../../src/calls/spend-breaker.ts';
import type { GateRefusal } from '../../src/stores/gate.ts';
import type { Interval } from '../../src/task/window.ts';
import { ALWAYS } from '../../src/task/window.ts';
import { estimateOf, limitOn, payerOf } from '../support/holds.ts';

const PAYER = payerOf('a');
const SETTINGS = { enabled: true, intervalMs: 60_000, timeoutMs: 10_000, failureThreshold: 3 };

function refusal(kind: 'user' | 'task' = 'user', interval: Interval = ALWAYS): GateRefusal {
  const limit = limitOn(PAYER, kind, 100n);
  return { kind: 'refused', limit, interval, settled: 95n, held: 0n };
}

/** A breaker on a clock of its own. */
function stage(settings: Partial<typeof SETTINGS> = {}) {
  const clock = { ms: 1_000_000 };
  const breaker = createSpendBreaker({ ...SETTINGS, ...settings }, () => clock.ms);
  const refuse = (times: number, nano = 10n, what = refusal()) => {
    for (let n = 0; n < times; n += 1)
      breaker.refused(PAYER, what, { estimate: estimateOf(nano), changesBefore: breaker.changes() });
  };
  const isRefused = (nano: bigint, payer = PAYER) => breaker.refusalOf(payer, estimateOf(nano)) !== undefined;
  return { clock, breaker, refuse, isRefused };
}

describe('a spend breaker', () => {
  it('opens at the threshold within the interval', () => {
    const { refuse, isRefused, clock } = stage();
    refuse(2);
    expect(isRefused(10n)).toBe(false);
    clock.ms += 60_001;
    refuse(2);
    expect(isRefused(10n)).toBe(false);
    refuse(1);
    expect(isRefused(10n)).toBe(true);
  });

  it('lets through what is smaller than anything that was refused', () => {
    const { refuse, isRefused } = stage();
    refuse(2, 50n);
    refuse(1, 10n);
    expect([isRefused(9n), isRefused(10n), isRefused(50n)]).toEqual([false, true, true]);
  });

  it('closes after its time, and when the window turns before that', () => {
    const { refuse, isRefused, clock } = stage();
    refuse(3);
    clock.ms += 10_000;
    expect(isRefused(10n)).toBe(false);
    refuse(3, 10n, refusal('user', { startMs: 0, endMs: clock.ms + 500 }));
    clock.ms += 499;
    expect(isRefused(10n)).toBe(true);
    clock.ms += 1;
    expect(isRefused(10n)).toBe(false);
  });

  it('forgets the tenant whose limits changed, or everybody when a change may have been missed', () => {
    const { refuse, isRefused, breaker } = stage();
    refuse(3);
    breaker.forget('tenant');
    expect(isRefused(10n)).toBe(true);
    breaker.forget(PAYER.tenantId);
    expect(isRefused(10n)).toBe(false);
    refuse(3);
    breaker.forget(undefined);
    expect(isRefused(10n)).toBe(false);
  });

  it('stops only who the limit binds: not the user of a task whose own budget is used up', () => {
    const { refuse, isRefused } = stage();
    refuse(3, 10n, refusal('task'));
    expect(isRefused(10n)).toBe(true);
    expect(isRefused(10n, { ...PAYER, taskId: 'another' })).toBe(false);
    expect(isRefused(10n, { ...PAYER, tenantId: 'another' })).toBe(false);
  });

  it('keeps the limits of one scope apart', () => {
    const { refuse, isRefused, clock } = stage();
    refuse(3, 10n, refusal('user', { startMs: 0, endMs: clock.ms + 500 }));
    refuse(3, 50n);
    clock.ms += 500;
    expect([isRefused(10n), isRefused(50n)]).toEqual([false, true]);
  });

  it('does not count what only the holds of others stood in the way of', () => {
    const { refuse, isRefused } = stage();
    refuse(9, 10n, { ...refusal(), kind: 'crowded' });
    expect(isRefused(10n)).toBe(false);
  });

  it('does not count a refusal by limits that were changed meanwhile', () => {
    const { breaker, isRefused } = stage();
    const changesBefore = breaker.changes();
    breaker.forget(PAYER.tenantId);
    for (let n = 0; n < 9; n += 1)
      breaker.refused(PAYER, refusal(), { estimate: estimateOf(10n), changesBefore });
    expect(isRefused(10n)).toBe(false);
  });

  it('never opens when it is turned off', () => {
    const { refuse, isRefused } = stage({ enabled: false });
    refuse(9);
    expect(isRefused(10n)).toBe(false);
  });
});
