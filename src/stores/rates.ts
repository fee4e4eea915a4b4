// Rate control of providers in Redis: a bucket for requests, one for tokens, and a bound on parallel requests, shared by all workers.
// The server's clock decides. While Redis is away each process keeps its own share of the limits (local-rates.ts).

import { rateKeys } from './keys.ts';
import { createLocalRates } from './local-rates.ts';
import { isRedisOutage, loadScript, type Redis } from './redis.ts';

const scripts = {
  admit: loadScript('rate-admit'),
  giveBack: loadScript('rate-give-back'),
  cool: loadScript('rate-cool'),
} as const;

/** A provider's limits; what is absent does not bind. */
export type ProviderRate = { readonly rpm?: number; readonly tpm?: number; readonly maxParallel?: number };

export type RateOutcome =
  | { readonly kind: 'admitted' }
  | {
      readonly kind: 'wait';
      readonly ms: number;
      readonly dimension: 'rpm' | 'tpm' | 'maxParallel' | 'cooldown';
    };

/** Five seconds of the requests, at least one; a whole minute of the tokens. */
const RPM_BURST_SECONDS = 5;

export type Rates = ReturnType<typeof createRates>;

export function createRates(
  redis: Redis,
  options: {
    readonly leaseMs: number;
    readonly limitOf: (provider: string) => ProviderRate;
    /** Processes that share the limits, as far as known. */
    readonly callers?: () => number | undefined;
  },
) {
  const local = createLocalRates({ callers: () => undefined, ...options });
  /** What Redis is told, as far as it is there: a permit that it is not told of ends with its lease. */
  const bestEffort = async (work: () => Promise<unknown>): Promise<void> => {
    try {
      await work();
    } catch (error) {
      if (!isRedisOutage(error)) throw error;
    }
  };
  return {
    /** Takes a permit for one request of `tokens`, or tells the exact wait. Idempotent in the attempt key. */
    async admit(provider: string, attemptKey: string, tokens: number): Promise<RateOutcome> {
      try {
        return await admit(redis, options, { provider, attemptKey, tokens });
      } catch (error) {
        if (!isRedisOutage(error)) throw error;
        return local.admit(provider, attemptKey, tokens);
      }
    },

    /** Ends a permit. `tokens` is what was really used; `sent: false` gives the whole request back. */
    async giveBack(
      provider: string,
      attemptKey: string,
      used: { tokens: number; sent: boolean },
    ): Promise<void> {
      local.giveBack(provider, attemptKey);
      const { rpm = 0, tpm = 0 } = options.limitOf(provider);
      const keys = rateKeys(redis.prefix, provider);
      await bestEffort(() =>
        redis.run(
          scripts.giveBack,
          [keys.bucket, keys.permits, keys.leases],
          [attemptKey, used.tokens, rpm, tpm, used.sent ? 0 : 1],
        ),
      );
    },

    /** Keeps a permit of a running request. */
    async renew(provider: string, attemptKey: string): Promise<void> {
      local.renew(provider, attemptKey);
      const { leases } = rateKeys(redis.prefix, provider);
      await bestEffort(async () => {
        const now = await redis.nowMs();
        await redis.command((client) => client.zadd(leases, 'XX', now + options.leaseMs, attemptKey));
      });
    },

    /** A provider said "not before": nobody asks it until then. */
    async cool(provider: string, ms: number): Promise<void> {
      local.cool(provider, ms);
      await bestEffort(() =>
        redis.run(scripts.cool, [rateKeys(redis.prefix, provider).bucket], [Math.ceil(ms)]),
      );
    },
  };
}

async function admit(
  redis: Redis,
  options: { readonly leaseMs: number; readonly limitOf: (provider: string) => ProviderRate },
  { provider, attemptKey, tokens }: { provider: string; attemptKey: string; tokens: number },
): Promise<RateOutcome> {
  const { rpm = 0, tpm = 0, maxParallel = 0 } = options.limitOf(provider);
  const keys = rateKeys(redis.prefix, provider);
  const rpmBurst = Math.max(1, (rpm * RPM_BURST_SECONDS) / 60);
  const answer = (await redis.run(
    scripts.admit,
    [keys.bucket, keys.permits, keys.leases],
    [attemptKey, options.leaseMs, rpm, rpmBurst, tpm, tpm, tokens, maxParallel],
  )) as ['OK'] | ['WAIT', number, 'rpm' | 'tpm' | 'maxParallel' | 'cooldown'];
  if (answer[0] === 'OK') return { kind: 'admitted' };
  const [, ms, dimension] = answer;
  // Those who wait for a place must not come back all at once.
  return {
    kind: 'wait',
    ms: dimension === 'maxParallel' ? Math.ceil(ms * (0.5 + Math.random())) : ms,
    dimension,
  };
}
