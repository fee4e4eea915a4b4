import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { BreakerOpen, createBreaker } from '../../src/calls/breaker.ts';
import type { BreakerSettings, BreakerState } from '../../src/task/breaker.ts';

const SETTINGS: BreakerSettings = {
  enabled: true,
  intervalMs: 60_000,
  timeoutMs: 30_000,
  failureThreshold: 3,
  successThreshold: 1,
  maxRequests: 1,
};

const HANGS_MS = 5_000;

class Down extends Error {}
class Refused extends Error {}

function open(change: Partial<BreakerSettings> = {}) {
  const changes: BreakerState[] = [];
  const settings = { ...SETTINGS, ...change };
  const breaker = createBreaker('test', () => settings, {
    isFailure: (error) => error instanceof Down,
    onChange: (_, state) => void changes.push(state),
    hangMs: HANGS_MS,
  });
  const run = (error?: Error) =>
    breaker
      .run(() => (error === undefined ? Promise.resolve('done') : Promise.reject(error)))
      .catch((thrown: unknown) => thrown);
  return {
    breaker,
    changes,
    settings,
    succeed: () => run(),
    fail: () => run(new Down('down')),
    refuse: () => run(new Refused('no')),
    async failTimes(times: number): Promise<void> {
      for (let n = 0; n < times; n += 1) await run(new Down('down'));
    },
  };
}

/** The time after which an open breaker lets one call try. */
const wait = (ms: number) => vi.advanceTimersByTimeAsync(ms);

beforeEach(() => {
  vi.useFakeTimers();
});

afterEach(() => {
  vi.useRealTimers();
});

describe('a closed breaker', () => {
  it('hands through what the work answers and throws', async () => {
    const { breaker, succeed, fail, refuse } = open();
    expect(await succeed()).toBe('done');
    expect(await fail()).toBeInstanceOf(Down);
    expect(await refuse()).toBeInstanceOf(Refused);
    expect(breaker).toMatchObject({ name: 'test', state: 'closed' });
    expect(breaker.retryAfterMs()).toBe(0);
  });

  it('opens at the threshold, not before', async () => {
    const { breaker, changes, failTimes } = open();
    await failTimes(2);
    expect(breaker.state).toBe('closed');
    await failTimes(1);
    expect(breaker.state).toBe('open');
    expect(changes).toEqual(['open']);
  });

  it.each([
    [7, 'open'],
    [8, 'closed'],
  ] as const)(
    'with %i successes beside three failures is %s: three tenths must have failed',
    async (successes, state) => {
      const { breaker, succeed, failTimes } = open();
      for (let n = 0; n < successes; n += 1) await succeed();
      await failTimes(3);
      expect(breaker.state).toBe(state);
    },
  );

  it('forgets failures that are older than the interval', async () => {
    const { breaker, failTimes } = open();
    await failTimes(2);
    await wait(60_001);
    await failTimes(2);
    expect(breaker.state).toBe('closed');
    await wait(59_000);
    await failTimes(1);
    expect(breaker.state).toBe('open');
  });

  it('counts what is no failure of the dependency as a success', async () => {
    const { breaker, refuse, failTimes } = open();
    for (let n = 0; n < 50; n += 1) await refuse();
    expect(breaker.state).toBe('closed');
    await failTimes(20);
    expect(breaker.state).toBe('closed');
    await failTimes(2);
    expect(breaker.state).toBe('open');
  });

  it('counts work that throws before it returns a promise', async () => {
    const { breaker } = open({ failureThreshold: 1 });
    const broken = () => {
      throw new Down('at once');
    };
    await expect(breaker.run(broken)).rejects.toBeInstanceOf(Down);
    expect(breaker.state).toBe('open');
  });

  it('opens once when many calls fail together', async () => {
    const { breaker, changes, fail } = open();
    await Promise.all(Array.from({ length: 20 }, fail));
    expect(breaker.state).toBe('open');
    expect(changes).toEqual(['open']);
  });
});

describe('an open breaker', () => {
  it('refuses without running the work and tells the time left', async () => {
    const { breaker, failTimes } = open();
    await failTimes(3);
    await wait(10_000);
    const work = vi.fn(() => Promise.resolve('done'));
    const error: unknown = await breaker.run(work).catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(BreakerOpen);
    expect(error).toMatchObject({
      name: 'BreakerOpen',
      retryAfterMs: 20_000,
      message: 'the breaker of test is open, next try in 20000 ms',
    });
    expect(breaker.retryAfterMs()).toBe(20_000);
    expect(work).not.toHaveBeenCalled();
  });

  it('lets one call try after its time, and only one at a time', async () => {
    const { breaker, changes, failTimes, succeed } = open();
    await failTimes(3);
    await wait(30_000);
    expect(breaker.state).toBe('half_open');
    expect(breaker.retryAfterMs()).toBe(0);
    const gate = Promise.withResolvers<string>();
    const probe = breaker.run(() => gate.promise);
    expect(await succeed()).toBeInstanceOf(BreakerOpen);
    gate.resolve('back');
    expect(await probe).toBe('back');
    expect(await succeed()).toBe('done');
    expect(changes).toEqual(['open', 'half_open', 'closed']);
  });

  it('opens again for the whole time when the try fails', async () => {
    const { breaker, changes, failTimes } = open();
    await failTimes(3);
    await wait(30_000);
    await failTimes(1);
    expect(breaker.state).toBe('open');
    expect(breaker.retryAfterMs()).toBe(30_000);
    await wait(29_999);
    expect(breaker.state).toBe('open');
    await wait(1);
    expect(changes).toEqual(['open', 'half_open', 'open', 'half_open']);
  });

  it('takes a refusal in the half-open state for a sign of life', async () => {
    const { breaker, failTimes, refuse } = open();
    await failTimes(3);
    await wait(30_000);
    expect(await refuse()).toBeInstanceOf(Refused);
    expect(breaker.state).toBe('closed');
  });

  it('stays open when a call that began before fails late', async () => {
    const { breaker, changes, failTimes } = open();
    const gate = Promise.withResolvers<never>();
    const late = breaker.run(() => gate.promise).catch((thrown: unknown) => thrown);
    await failTimes(3);
    await wait(10_000);
    gate.reject(new Down('late'));
    expect(await late).toBeInstanceOf(Down);
    expect(breaker.retryAfterMs()).toBe(20_000);
    expect(changes).toEqual(['open']);
  });
});

describe('a half-open breaker', () => {
  const halfOpen = async (change: Partial<BreakerSettings>) => {
    const made = open(change);
    await made.failTimes(3);
    await wait(30_000);
    expect(made.breaker.state).toBe('half_open');
    return made;
  };

  /** A call that lasts until it is told how it ends. */
  const begin = (breaker: ReturnType<typeof open>['breaker']) => {
    const gate = Promise.withResolvers<string>();
    const ended = breaker.run(() => gate.promise).catch((thrown: unknown) => thrown);
    const end = async (error?: Error) => {
      if (error === undefined) gate.resolve('done');
      else gate.reject(error);
      return ended;
    };
    return { ended, end };
  };

  it('closes after as many successes as it needs, not before', async () => {
    const { breaker, succeed } = await halfOpen({ successThreshold: 3 });
    await succeed();
    await succeed();
    expect(breaker.state).toBe('half_open');
    await succeed();
    expect(breaker.state).toBe('closed');
  });

  it('opens at the first failure, whatever succeeded before', async () => {
    const { breaker, succeed, failTimes } = await halfOpen({ successThreshold: 3 });
    await succeed();
    await succeed();
    await failTimes(1);
    expect(breaker.state).toBe('open');
    expect(breaker.retryAfterMs()).toBe(30_000);
  });

  it('lets as many try at a time as it is told, and another when one has ended', async () => {
    const { breaker, succeed } = await halfOpen({ maxRequests: 2, successThreshold: 5 });
    const tries = [begin(breaker), begin(breaker)];
    expect(await succeed()).toBeInstanceOf(BreakerOpen);
    await tries[0]?.end();
    expect(await succeed()).toBe('done');
    expect(await tries[1]?.end()).toBe('done');
    expect(breaker.state).toBe('half_open');
  });

  it('opens again when a try hangs, and does not hear of it any more', async () => {
    const { breaker, changes } = await halfOpen({});
    const hanging = begin(breaker);
    await wait(HANGS_MS - 1);
    expect(breaker.state).toBe('half_open');
    await wait(1);
    expect(breaker.state).toBe('open');
    await wait(30_000);
    await hanging.end();
    expect(changes).toEqual(['open', 'half_open', 'open', 'half_open']);
    const next = begin(breaker);
    await next.end();
    expect(breaker.state).toBe('closed');
  });

  it('learns nothing from a try that was called off, and lets the next one try', async () => {
    const { breaker, succeed } = await halfOpen({});
    const [entry, late] = [await breaker.enter(), await breaker.enter()];
    expect(late).toEqual({ kind: 'refused', retryAfterMs: 0 });
    if (entry.kind === 'let_in') entry.pass.end('unknown');
    const aborted = begin(breaker);
    await aborted.end(new DOMException('called off', 'AbortError') as unknown as Error);
    expect(breaker.state).toBe('half_open');
    expect(await succeed()).toBe('done');
    expect(breaker.state).toBe('closed');
  });

  it('counts each try once', async () => {
    const { breaker } = await halfOpen({ successThreshold: 2 });
    const entry = await breaker.enter();
    if (entry.kind === 'let_in') for (const _ of [1, 2, 3]) entry.pass.end('succeeded');
    expect(breaker.state).toBe('half_open');
  });

  it('passes over what began while it was closed', async () => {
    const made = open({});
    const [good, bad] = [begin(made.breaker), begin(made.breaker)];
    await made.failTimes(3);
    await wait(30_000);
    await good.end();
    await bad.end(new Down('late'));
    expect(made.breaker.state).toBe('half_open');
  });
});

describe('a breaker that has closed again', () => {
  it('opens at the threshold, as it did before', async () => {
    const { breaker, failTimes, succeed } = open();
    await failTimes(3);
    await wait(30_000);
    await succeed();
    await failTimes(2);
    expect(breaker.state).toBe('closed');
    await failTimes(1);
    expect(breaker.state).toBe('open');
  });
});

describe('settings that change while it works', () => {
  it('hold from the next call on', async () => {
    const { breaker, settings, failTimes } = open({ failureThreshold: 10 });
    await failTimes(4);
    settings.failureThreshold = 5;
    settings.timeoutMs = 1_000;
    await failTimes(1);
    expect(breaker.state).toBe('open');
    expect(breaker.retryAfterMs()).toBe(1_000);
    await wait(1_000);
    expect(breaker.state).toBe('half_open');
  });

  it('switch an open breaker off and on again, closed', async () => {
    const { breaker, changes, settings, failTimes, succeed } = open();
    await failTimes(3);
    settings.enabled = false;
    expect(breaker.state).toBe('closed');
    expect(await succeed()).toBe('done');
    settings.enabled = true;
    expect(breaker.state).toBe('closed');
    expect(changes).toEqual(['open', 'closed']);
  });
});

describe('a disabled breaker', () => {
  it('never opens and runs everything', async () => {
    const { breaker, changes, failTimes, succeed } = open({ enabled: false });
    await failTimes(50);
    expect(breaker.state).toBe('closed');
    expect(breaker.retryAfterMs()).toBe(0);
    expect(await succeed()).toBe('done');
    expect(changes).toEqual([]);
  });
});
