// What the buckets of rate control hold at this moment, for people and metrics. Reads only, and decides nothing.

import { TIERS } from '../task/input.ts';
import { RATE_DIMENSIONS, type RateDimension } from '../task/rate-reading.ts';
import type { RateBucketReport, RateLimitReport } from '../task/rate-report.ts';
import { rateKeys, tenantRateKeys } from './keys.ts';
import { providerOf } from './learnt-rates.ts';
import { effectiveLimit, readLearnt } from './learnt-rule.ts';
import { DEFAULT_RATE_CLASSES, type RateClasses, type RateLimit, type RateRules } from './rate-rules.ts';
import type { Redis } from './redis.ts';

const MINUTE_MS = 60_000;

type Place = Pick<RateBucketReport, 'bucket' | 'name' | 'tenantId'> & {
  readonly key: string;
  readonly leases: string;
  readonly limit: RateLimit;
  /** False where the limits are turned off. */
  readonly binds: boolean;
};

export function createRateReports(
  redis: Redis,
  options: {
    readonly rules?: Partial<RateRules> | undefined;
    readonly classes?: Pick<RateClasses, 'rpmBurstMs' | 'tpmBurstMs'> | undefined;
    /** Those that are reported on, as `provider/model`; left out: none. */
    readonly models?: (() => readonly string[]) | undefined;
  },
) {
  const { rules = {}, classes = DEFAULT_RATE_CLASSES, models: modelsOf = () => [] } = options;
  const binds = () => rules.limitsProviders?.() ?? true;
  return {
    /** Providers of the models that are reported on. */
    providers: (): readonly string[] => [...new Set(modelsOf().map(providerOf))],

    /** The buckets of providers and their models. A model without any limit is left out. */
    async ofModels(): Promise<readonly RateBucketReport[]> {
      const models = modelsOf();
      const providers = [...new Set(models.map(providerOf))].map((provider): Place => {
        const { outer, outerLeases } = rateKeys(redis.prefix, provider);
        const limit = rules.provider?.(provider) ?? {};
        return {
          ...ofProvider('provider', provider),
          key: outer,
          leases: outerLeases,
          limit,
          binds: binds(),
        };
      });
      const places = models.map((model): Place => {
        const { inner, innerLeases } = rateKeys(redis.prefix, providerOf(model), model);
        const limit = rules.model?.(model) ?? {};
        return { ...ofProvider('model', model), key: inner, leases: innerLeases, limit, binds: binds() };
      });
      const reports = await readAll(redis, classes, [...providers, ...places]);
      return reports.filter((report) => report.bucket === 'provider' || isLimited(report));
    },

    /** The buckets of a tenant: its plan's, and one for each tier. Those without a limit are left out. */
    async ofTenant(tenantId: string): Promise<readonly RateBucketReport[]> {
      const plan = tenantRateKeys(redis.prefix, tenantId, '');
      const places: Place[] = [
        {
          ...{ bucket: 'plan', name: tenantId, tenantId, key: plan.outer, leases: plan.outerLeases },
          ...{ limit: rules.plan?.(tenantId) ?? {}, binds: true },
        },
        ...TIERS.map((tier): Place => {
          const keys = tenantRateKeys(redis.prefix, tenantId, tier);
          const limit = rules.tier?.(tier) ?? {};
          return {
            ...{ bucket: 'tier', name: tier, tenantId, key: keys.inner, leases: keys.innerLeases },
            ...{ limit, binds: true },
          };
        }),
      ];
      return (await readAll(redis, classes, places)).filter(isLimited);
    },
  };
}

function ofProvider(bucket: 'provider' | 'model', name: string) {
  return { bucket, name, tenantId: undefined };
}

function isLimited({ limits, blockedUntil }: RateBucketReport): boolean {
  return limits.length > 0 || blockedUntil !== undefined;
}

type Bursts = Pick<RateClasses, 'rpmBurstMs' | 'tpmBurstMs'>;

async function readAll(
  redis: Redis,
  bursts: Bursts,
  places: readonly Place[],
): Promise<readonly RateBucketReport[]> {
  const nowMs = await redis.nowMs();
  return Promise.all(places.map((place) => read(redis, bursts, place, nowMs)));
}

/** Of each dimension: arrival time in us, learnt limit and when, and what the provider said remained. */
const FIELDS_OF = (dimension: RateDimension) =>
  [dimension, `limit:${dimension}`, `limitAt:${dimension}`, `heard:${dimension}`] as const;

async function read(redis: Redis, bursts: Bursts, place: Place, nowMs: number): Promise<RateBucketReport> {
  const fields = RATE_DIMENSIONS.flatMap(FIELDS_OF);
  const [[blocked, ...state], running] = await Promise.all([
    redis.command((client) => client.hmget(place.key, 'blocked', ...fields)),
    place.limit.maxParallel === undefined
      ? 0
      : redis.command((client) => client.zcount(place.leases, `(${nowMs}`, '+inf')),
  ]);
  const blockedMs = Number(blocked ?? 0);
  const isBlocked = blockedMs > nowMs;
  const limits = RATE_DIMENSIONS.map((dimension, index) =>
    limitOf(place, dimension, { fields: state.slice(index * 4, index * 4 + 4), bursts, nowMs, isBlocked }),
  );
  return {
    bucket: place.bucket,
    name: place.name,
    tenantId: place.tenantId,
    blockedUntil: isBlocked ? new Date(blockedMs) : undefined,
    limits: [...limits, parallelOf(place, running)].filter((limit) => limit !== undefined),
  };
}

function limitOf(
  { limit, binds }: Place,
  dimension: RateDimension,
  at: {
    readonly fields: readonly (string | null)[];
    readonly bursts: Bursts;
    readonly nowMs: number;
    readonly isBlocked: boolean;
  },
): RateLimitReport | undefined {
  const [tat, learntLimit, learntAt, heard] = at.fields;
  const configured = limit[dimension];
  const learnt = readLearnt(learntLimit, learntAt);
  const [remaining = 0, heardMs = 0] = (heard ?? '').split(' ').map(Number);
  if (configured === undefined && learnt === undefined && !heard) return undefined;
  const effective = binds ? effectiveLimit(learnt, configured ?? 0, at.nowMs) : 0;
  const burstMs = dimension === 'rpm' ? at.bursts.rpmBurstMs : at.bursts.tpmBurstMs;
  return {
    dimension,
    configured,
    learnt: learnt && {
      value: learnt.value,
      stated: learnt.ceiling,
      at: new Date(learnt.atMs),
    },
    effective: effective > 0 ? round(effective) : undefined,
    remaining:
      effective > 0
        ? remainingOf({ tatMs: Number(tat ?? 0) / 1_000, limit: effective, burstMs, nowMs: at.nowMs }) *
          (at.isBlocked ? 0 : 1)
        : undefined,
    heard: heard ? { remaining, at: new Date(heardMs) } : undefined,
  };
}

/** How much fits into the bucket before its arrival time is as far ahead as it may be. */
function remainingOf(of: {
  readonly tatMs: number;
  readonly limit: number;
  readonly burstMs: number;
  readonly nowMs: number;
}): number {
  const sizeMs = Math.max(of.burstMs, MINUTE_MS / of.limit);
  const freeMs = sizeMs - Math.max(0, of.tatMs - of.nowMs);
  return Math.max(0, Math.floor((freeMs * of.limit) / MINUTE_MS + 1e-6));
}

function parallelOf({ limit, binds }: Place, running: number): RateLimitReport | undefined {
  const { maxParallel } = limit;
  if (maxParallel === undefined) return undefined;
  return {
    dimension: 'maxParallel',
    configured: maxParallel,
    learnt: undefined,
    effective: binds ? maxParallel : undefined,
    remaining: binds ? Math.max(0, maxParallel - running) : undefined,
    heard: undefined,
  };
}

function round(value: number): number {
  return Math.round(value * 100) / 100;
}
