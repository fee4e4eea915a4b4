// Erasing texts: what a tenant's or a user's tasks were asked and what was answered. What they cost stays.

import { z } from 'zod';
import type { ErasedView } from '../client/wire.ts';
import type { App, RouteParts } from './parts.ts';
import { id, problemAnswer } from './schemas.ts';

const querystring = z.strictObject({
  tenantId: id.describe('Whose texts'),
  userId: id.optional().describe('Of this user of the tenant alone; left out: of all'),
});

const erased: z.ZodType<ErasedView> = z
  .object({
    tasks: z.number().describe('Tasks whose texts are gone now'),
    events: z.number().describe('Events of theirs that had a text'),
    calls: z.number().describe('Answers of calls that belong to no task'),
    running: z.number().describe('Tasks still under way: erase again when they have ended'),
  })
  .meta({ id: 'Erased' });

export function registerErase(app: App, { stores: { erase } }: RouteParts): void {
  app.delete(
    '/texts',
    {
      schema: {
        tags: ['texts'],
        summary: 'Erase prompts, answers and texts of events',
        description:
          'Of tasks that have ended, for good, in Postgres and Redis. The ledger stays as it is. Temporal keeps histories until their own ' +
          'retention ends, and providers what they keep. Safe to repeat.',
        querystring,
        response: { 200: erased, default: problemAnswer },
      },
    },
    ({ query: { tenantId, userId } }) => erase.eraseTexts(tenantId, { userId }),
  );
}
