// Calls that outlive their cancellation are let go when the grace time of a stopping worker is over, and not before.

import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import { letGoAfterGrace } from '../src/let-go.ts';

beforeEach(() => {
  vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval', 'setTimeout', 'clearTimeout'] });
});

afterEach(() => {
  vi.useRealTimers();
});

it('lets go once one of the workers has stopped for its grace time', () => {
  const states = ['INITIALIZED', 'INITIALIZED'];
  const letGo = new AbortController();
  letGoAfterGrace([{ getState: () => states[0] ?? '' }, { getState: () => states[1] ?? '' }], 30_000, letGo);
  states.fill('RUNNING');
  vi.advanceTimersByTime(600_000);
  states[1] = 'STOPPING';
  vi.advanceTimersByTime(250 + 29_999);
  expect(letGo.signal.aborted).toBe(false);
  vi.advanceTimersByTime(1);
  expect(letGo.signal.aborted).toBe(true);
});

it('does nothing any more once the workers are done', () => {
  let state = 'RUNNING';
  const letGo = new AbortController();
  const watch = letGoAfterGrace([{ getState: () => state }], 1_000, letGo);
  state = 'STOPPING';
  vi.advanceTimersByTime(250);
  watch.stop();
  state = 'STOPPED';
  vi.advanceTimersByTime(10_000);
  expect(letGo.signal.aborted).toBe(false);
  expect(vi.getTimerCount()).toBe(0);
});
