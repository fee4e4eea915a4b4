// The route of breakers: which dependencies serve, as the gateway and, for models, the whole fleet see it.

import { z } from 'zod';
import type { BreakerReport } from '../calls/breakers.ts';
import type { BreakersView, BreakerView } from '../client/wire.ts';
import { BREAKER_KINDS, BREAKER_STATES, type BreakerSettings } from '../task/breaker.ts';
import { DEGRADATION_LEVELS } from '../task/degradation.ts';
import type { App, RouteParts } from './parts.ts';
import { problemAnswer } from './schemas.ts';

const settings: z.ZodType<BreakerSettings> = z
  .object({
    enabled: z.boolean(),
    intervalMs: z.number().describe('Failures within it count together'),
    timeoutMs: z.number().describe('How long it stays open before a call may try'),
    failureThreshold: z.number().describe('Opens at so many, when they are three tenths of the calls'),
    successThreshold: z.number().describe('Tries that must succeed before it closes'),
    maxRequests: z.number().describe('Tries at a time'),
  })
  .meta({ id: 'BreakerSettings' });

const breakers: z.ZodType<BreakersView> = z
  .object({
    level: z.enum(DEGRADATION_LEVELS).describe('How degraded tasks run that begin now'),
    down: z.array(z.string()).describe('Dependencies that do not serve; a provider once for all its models'),
    breakers: z.array(
      z.object({
        name: z
          .string()
          .describe(
            '`redis`, `redis:events`, `postgres`, `temporal`, `llm:<provider>/<model>`, `tool:<name>`',
          ),
        kind: z.enum(BREAKER_KINDS),
        scope: z
          .enum(['process', 'fleet'])
          .describe(
            '`fleet`: shared by all processes. `process`: this gateway alone; workers show theirs as metrics',
          ),
        state: z.enum(BREAKER_STATES),
        since: z.string().exactOptional().describe('Of its last change'),
        retryAfterMs: z.number().describe('Until a call may try; 0 unless it is open'),
        calls: z.number().describe('Within the interval'),
        failures: z.number(),
        settings,
      }),
    ),
  })
  .meta({ id: 'Breakers' });

export function registerBreakers(app: App, parts: RouteParts): void {
  app.get(
    '/breakers',
    {
      schema: {
        tags: ['operations'],
        summary: 'Circuit breakers and the level of degradation',
        response: { 200: breakers, default: problemAnswer },
      },
    },
    async () => {
      const report = await parts.breakers.report();
      return { level: report.level, down: [...report.down], breakers: report.breakers.map(toView) };
    },
  );
}

function toView({ since, settings: own, ...breaker }: BreakerReport): BreakerView {
  const { enabled, intervalMs, timeoutMs, failureThreshold, successThreshold, maxRequests } = own;
  return {
    ...breaker,
    ...(since === undefined ? {} : { since: since.toISOString() }),
    settings: { enabled, intervalMs, timeoutMs, failureThreshold, successThreshold, maxRequests },
  };
}
