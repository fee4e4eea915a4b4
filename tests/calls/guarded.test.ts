// Real breakers before plain objects.

import { describe, expect, it, vi } from 'vitest';
import { BreakerOpen, createBreaker } from '../../src/calls/breaker.ts';
import { guarded } from '../../src/calls/guarded.ts';

class Down extends Error {}

function open({ failureThreshold }: { failureThreshold: number } = { failureThreshold: 3 }) {
  const settings = {
    enabled: true,
    intervalMs: 60_000,
    timeoutMs: 30_000,
    failureThreshold,
    successThreshold: 1,
    maxRequests: 1,
  };
  const breaker = createBreaker('test', () => settings, {
    isFailure: (error) => error instanceof Down,
    onChange: () => undefined,
    hangMs: 5_000,
  });
  return { breaker };
}

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
