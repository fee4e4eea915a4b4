// Schemas that several routes share, with the names under which OpenAPI shows them.

import { z } from 'zod';
import type { EventPage, Problem, TaskAccepted, TaskPage, TaskView } from '../client/wire.ts';
import { DEGRADATION_LEVELS, type Degradation } from '../task/degradation.ts';
import { EVENT_TYPES, type TaskEvent } from '../task/event.ts';
import { STRATEGIES, TIERS } from '../task/input.ts';
import { ID_PATTERN } from '../task/input-fields.ts';
import { TASK_STATUSES } from '../task/status.ts';
import type { UsageTotals } from '../task/usage.ts';

export const id = z.string().regex(ID_PATTERN).describe('1 to 128 characters out of A-Z a-z 0-9 . _ : @ -');

/** A number in a query string. */
export function queryNumber(min: number, max: number) {
  const expected = `a whole number from ${min} to ${max}`;
  const isInBounds = (text: string) => /^\d{1,15}$/.test(text) && Number(text) >= min && Number(text) <= max;
  return z.string().refine(isInBounds, expected).describe(expected);
}

/** A list in a query string: repeated, or separated by commas. */
export const queryList = z.union([z.string(), z.array(z.string())]);

export function toList(value: string | readonly string[] | undefined): readonly string[] {
  const parts = (typeof value === 'string' ? [value] : (value ?? [])).flatMap((part) => part.split(','));
  return [...new Set(parts.map((part) => part.trim()).filter((part) => part !== ''))];
}

const usage: z.ZodType<UsageTotals> = z
  .object({
    inputTokens: z.number(),
    cachedInputTokens: z.number(),
    cacheWriteTokens: z.number(),
    outputTokens: z.number(),
    reasoningTokens: z.number(),
  })
  .describe('`inputTokens` and `outputTokens` are totals, the others parts of them')
  .meta({ id: 'Usage' });

const links = z.object({ self: z.string(), events: z.string(), stream: z.string(), cancel: z.string() });

export const taskAccepted: z.ZodType<TaskAccepted> = z
  .object({
    taskId: z.string(),
    status: z.enum(TASK_STATUSES),
    links,
  })
  .meta({ id: 'TaskAccepted' });

const degradation: z.ZodType<Degradation> = z
  .object({
    level: z.enum(DEGRADATION_LEVELS),
    down: z.array(z.string()).describe('Dependencies that did not serve when the task began'),
    tier: z.object({ asked: z.enum(TIERS), given: z.enum(TIERS) }).exactOptional(),
    strategy: z.object({ asked: z.enum(STRATEGIES), given: z.enum(STRATEGIES) }).exactOptional(),
  })
  .describe('What the task was given instead of what it asked for')
  .meta({ id: 'Degradation' });

export const task: z.ZodType<TaskView> = z
  .object({
    taskId: z.string(),
    status: z.enum(TASK_STATUSES),
    phase: z.string(),
    tenantId: z.string(),
    userId: z.string(),
    sessionId: z.string().exactOptional(),
    strategy: z.string(),
    priority: z.string(),
    tier: z.string().exactOptional(),
    model: z.string().exactOptional(),
    createdAt: z.string(),
    startedAt: z.string().exactOptional(),
    endedAt: z.string().exactOptional(),
    usage,
    costUsd: z.string(),
    degradation: degradation.exactOptional(),
    result: z
      .object({
        text: z.string(),
        steps: z.array(
          z.object({
            stepId: z.string(),
            status: z.string(),
            callKey: z.string().exactOptional(),
            model: z.string().exactOptional(),
          }),
        ),
      })
      .exactOptional(),
    error: z
      .object({ type: z.string(), message: z.string(), details: z.unknown().exactOptional() })
      .exactOptional(),
    waiting: z.object({ reason: z.string(), until: z.string().exactOptional() }).exactOptional(),
    links,
  })
  .meta({ id: 'Task' });

export const taskPage: z.ZodType<TaskPage> = z
  .object({
    tasks: z.array(task),
    next: z.string().exactOptional().describe('The cursor of the next page; absent on the last one'),
  })
  .meta({ id: 'TaskPage' });

const taskEvent: z.ZodType<TaskEvent> = z
  .object({
    taskId: z.string(),
    seq: z.number(),
    epoch: z.number(),
    type: z.enum(EVENT_TYPES),
    at: z.string(),
    stepId: z.string().exactOptional(),
    callKey: z.string().exactOptional(),
    attempt: z.string().exactOptional(),
    message: z.string().exactOptional(),
    data: z.record(z.string(), z.unknown()).exactOptional(),
  })
  .meta({ id: 'TaskEvent' });

export const eventPage: z.ZodType<EventPage> = z
  .object({
    events: z.array(taskEvent),
    next: z
      .number()
      .exactOptional()
      .describe('The number to go on after; absent when there was nothing more'),
  })
  .meta({ id: 'EventPage' });

const problem: z.ZodType<Problem> = z
  .looseObject({
    type: z.string(),
    title: z.string(),
    status: z.number(),
    detail: z.string().exactOptional(),
    faults: z.array(z.object({ path: z.string(), expected: z.string(), got: z.string() })).exactOptional(),
  })
  .describe('RFC 9457. A refusal carries its details beside these.')
  .meta({ id: 'Problem' });

/** For the `default` of a route's answers. */
export const problemAnswer = {
  description: 'What went wrong',
  content: { 'application/problem+json': { schema: problem } },
} as const;
