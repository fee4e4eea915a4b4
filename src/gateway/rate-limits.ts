// The route of rate limits: what is configured, what providers taught, what holds now. Figures of a moment, for people.

import { z } from 'zod';
import type { RateBucketView, RateLimitsView, RateLimitView } from '../client/wire.ts';
import { RATE_DIMENSIONS } from '../task/rate-reading.ts';
import { RATE_BUCKETS, type RateBucketReport, type RateLimitReport } from '../task/rate-report.ts';
import { DEFAULT_TENANT } from './budget-scope.ts';
import type { App, RouteParts } from './parts.ts';
import { id, problemAnswer } from './schemas.ts';

const amount = z.number().nonnegative();

const limit: z.ZodType<RateLimitView> = z
  .object({
    dimension: z.enum([...RATE_DIMENSIONS, 'maxParallel']),
    configured: amount.exactOptional().describe('Absent: nothing is configured'),
    learnt: z
      .object({
        limit: amount,
        stated: amount.exactOptional().describe('What the provider itself says'),
        at: z.string(),
      })
      .exactOptional()
      .describe('As it stood when it was learnt; it recovers from there'),
    effective: amount
      .exactOptional()
      .describe('What holds now, never more than what is configured; absent: nothing binds'),
    remaining: amount.exactOptional().describe('What could be taken at this moment'),
    heard: z
      .object({ remaining: amount, at: z.string() })
      .exactOptional()
      .describe('What the provider last said remained with it'),
  })
  .meta({ id: 'RateLimit' });

const limits: z.ZodType<RateLimitsView> = z
  .object({
    buckets: z.array(
      z.object({
        bucket: z.enum(RATE_BUCKETS),
        name: z
          .string()
          .describe('A provider, `provider/model`, a tier, or of a plan the tenant whose it is'),
        tenantId: z.string().exactOptional().describe('Of a tier or a plan'),
        blockedUntil: z.string().exactOptional().describe('Nobody asks the provider before'),
        limits: z.array(limit),
      }),
    ),
  })
  .meta({ id: 'RateLimits' });

export function registerRateLimits(app: App, parts: RouteParts): void {
  app.get(
    '/limits',
    {
      schema: {
        tags: ['operations'],
        summary: 'Rate limits of providers and models, and those of a tenant',
        description:
          'A call passes all of provider, model, tier and plan. Providers without a key are left out, and buckets without a limit.',
        querystring: z.strictObject({
          tenantId: id.optional().describe('Whose tiers and plan; left out: `default`'),
        }),
        response: { 200: limits, default: problemAnswer },
      },
    },
    async ({ query }) => {
      const { rateReports } = parts.stores;
      const [ofModels, ofTenant] = await Promise.all([
        rateReports.ofModels(),
        rateReports.ofTenant(query.tenantId ?? DEFAULT_TENANT),
      ]);
      return { buckets: [...ofModels, ...ofTenant].map(toView) };
    },
  );
}

function toView({ bucket, name, tenantId, blockedUntil, limits: own }: RateBucketReport): RateBucketView {
  return {
    bucket,
    name,
    ...(tenantId === undefined ? {} : { tenantId }),
    ...(blockedUntil === undefined ? {} : { blockedUntil: blockedUntil.toISOString() }),
    limits: own.map(toLimitView),
  };
}

function toLimitView(report: RateLimitReport): RateLimitView {
  const { dimension, configured, learnt, effective, remaining, heard } = report;
  return {
    dimension,
    ...(configured === undefined ? {} : { configured }),
    ...(learnt === undefined
      ? {}
      : {
          learnt: {
            limit: learnt.value,
            ...(learnt.stated === undefined ? {} : { stated: learnt.stated }),
            at: learnt.at.toISOString(),
          },
        }),
    ...(effective === undefined ? {} : { effective }),
    ...(remaining === undefined ? {} : { remaining }),
    ...(heard === undefined ? {} : { heard: { remaining: heard.remaining, at: heard.at.toISOString() } }),
  };
}
