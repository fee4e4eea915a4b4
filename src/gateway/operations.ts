// Pages for operators: whether the gateway lives and is ready, its metrics, and the description of its API.

import { z } from 'zod';
import { probeAll } from '../health.ts';
import type { App, RouteParts } from './parts.ts';

export function registerOperations(app: App, parts: RouteParts): void {
  const check = z.enum(['ok', 'failed']);
  const readiness = z.object({ ready: z.boolean(), checks: z.record(z.string(), check) });

  app.get(
    '/health/live',
    {
      schema: {
        tags: ['operations'],
        security: [],
        summary: 'Whether the process lives',
        response: { 200: z.object({ live: z.literal(true) }) },
      },
    },
    async () => ({ live: true as const }),
  );

  app.get(
    '/health/ready',
    {
      schema: {
        tags: ['operations'],
        security: [],
        summary: 'Whether Temporal, Redis and Postgres answer',
        response: { 200: readiness, 503: readiness },
      },
    },
    async (_, reply) => {
      const { ready, checks } = await probeAll(parts.probes);
      return reply.code(ready ? 200 : 503).send({ ready, checks: { ...checks } });
    },
  );

  app.get(
    '/metrics',
    { schema: { tags: ['operations'], security: [], summary: 'Prometheus' } },
    async (_, reply) =>
      reply.type(parts.metrics.registry.contentType).send(await parts.metrics.registry.metrics()),
  );

  app.get('/openapi.json', { schema: { hide: true } }, async () => app.swagger());
}
