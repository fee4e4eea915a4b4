// How full a Redis is, looked at every few seconds. Where it has no bound it is never full.

import type { Redis } from './redis.ts';

export type MemoryWatch = AsyncDisposable & {
  /** Whether more than the share was in use when it was looked at last; false before the first look. */
  isTight(): boolean;
};

export type MemoryWatchOptions = {
  /** Of `maxmemory`. */
  readonly share: number;
  readonly everyMs: number;
  readonly onChange: (isTight: boolean) => void;
  /** A look that failed; the last one holds. */
  readonly onFailure: (error: unknown) => void;
};

/** Looks at once and then again and again, until disposed. */
export function watchMemory(redis: Pick<Redis, 'command'>, options: MemoryWatchOptions): MemoryWatch {
  let isTight = false;
  const look = async () => {
    try {
      const found = (await usedShare(redis)) > options.share;
      if (found === isTight) return;
      isTight = found;
      options.onChange(found);
    } catch (error) {
      options.onFailure(error);
    }
  };
  let looking = look();
  // One look at a time: one that hangs must not be joined by others.
  const timer = setInterval(() => {
    looking = looking.then(look);
  }, options.everyMs);
  timer.unref();
  return {
    isTight: () => isTight,
    async [Symbol.asyncDispose]() {
      clearInterval(timer);
      await looking;
    },
  };
}

/** Memory in use as a share of `maxmemory`; 0 without one. @throws when the server does not answer */
async function usedShare(redis: Pick<Redis, 'command'>): Promise<number> {
  const info = await redis.command((client) => client.info('memory'));
  const [used, most] = [figureOf(info, 'used_memory'), figureOf(info, 'maxmemory')];
  return most > 0 ? used / most : 0;
}

function figureOf(info: string, name: string): number {
  const found = new RegExp(`^${name}:(\\d+)`, 'm').exec(info)?.[1];
  if (found === undefined) throw new Error(`redis does not tell its ${name} in INFO memory`);
  return Number(found);
}
