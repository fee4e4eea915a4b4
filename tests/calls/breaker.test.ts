import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import {
  BreakerOpen,
  type BreakerSettings,
  type BreakerState,
  createBreaker,
  guarded,
} from '../../src/calls/breaker.ts';

const SETTINGS: BreakerSettings = {
  enabled: true,
  intervalMs: 60_000,
  timeoutMs: 30_000,
  failureThreshold: 3,
  successThreshold: 1,
};

class Down extends Error {}
class Refused extends Error {}

function open(change: Partial<BreakerSettings> = {}) {
  const changes: BreakerState[] = [];
  const breaker = createBreaker(
    'test',
    { ...SETTINGS, ...change },
    {
      isFailure: (error) => error instanceof Down,
      onChange: (_, state) => void changes.push(state),
    },
  );
  const run = (error?: Error) =>
    breaker
      .run(() => (error === undefined ? Promise.resolve('done') : Promise.reject(error)))
      .catch((thrown: unknown) => thrown);
  return {
    breaker,
    changes,
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

describe('a breaker that has closed again', () => {
  const reclose = async (successThreshold: number) => {
    const made = open({ successThreshold });
    await made.failTimes(3);
    await wait(30_000);
    await made.succeed();
    expect(made.breaker.state).toBe('closed');
    return made;
  };

  it('opens at the first failure until it has had its successes', async () => {
    const { breaker, succeed, failTimes } = await reclose(3);
    await succeed();
    await failTimes(1);
    // One success of the try and one after it are two of three.
    expect(breaker.state).toBe('open');
  });

  it('is as it was once it has had its successes, the first of them counted', async () => {
    const { breaker, succeed, failTimes } = await reclose(3);
    await succeed();
    await succeed();
    await failTimes(2);
    expect(breaker.state).toBe('closed');
    await failTimes(1);
    expect(breaker.state).toBe('open');
  });

  it('needs one success where one is enough', async () => {
    const { breaker, failTimes } = await reclose(1);
    await failTimes(2);
    expect(breaker.state).toBe('closed');
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

describe('guarded', () => {
  it('puts the named methods behind the breaker and leaves the others', async () => {
    const { breaker } = open({ failureThreshold: 1 });
    const target = {
      prefix: 'p',
      get: vi.fn((key: string, times: number) => Promise.resolve(`${key}${times}`)),
      fail: () => Promise.reject(new Down('down')),
      close: () => Promise.resolve('closed'),
    };
    const safe = guarded(target, breaker, ['get', 'fail']);
    expect(await safe.get('k', 2)).toBe('k2');
    expect(target.get).toHaveBeenCalledWith('k', 2);
    await expect(safe.fail()).rejects.toBeInstanceOf(Down);
    await expect(safe.get('k', 3)).rejects.toBeInstanceOf(BreakerOpen);
    expect(target.get).toHaveBeenCalledTimes(1);
    expect(await safe.close()).toBe('closed');
    expect(safe.prefix).toBe('p');
  });

  it('lets its methods reach the rest of their object', async () => {
    const { breaker } = open();
    const target = {
      factor: 3,
      async times(n: number): Promise<number> {
        return n * this.factor;
      },
    };
    expect(await guarded(target, breaker, ['times']).times(4)).toBe(12);
  });

  it('keeps calls of several connections apart by their breakers', async () => {
    const [first, second] = [open({ failureThreshold: 1 }), open({ failureThreshold: 1 })];
    const make = (made: typeof first) =>
      guarded(
        { ask: (error?: Error) => (error === undefined ? Promise.resolve(1) : Promise.reject(error)) },
        made.breaker,
        ['ask'],
      );
    await make(first)
      .ask(new Down('down'))
      .catch(() => undefined);
    expect(first.breaker.state).toBe('open');
    expect(await make(second).ask()).toBe(1);
  });
});
