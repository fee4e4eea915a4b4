// The input of a task as OpenAPI shows it. It decides nothing: task/input.ts is the only authority, and a test holds this schema against
// the table there, field by field and sample by sample.

import { z } from 'zod';
import { EXCEEDED_POLICIES } from '../task/budget.ts';
import { ABORT_POLICIES, MAX_INPUT_BYTES, REASONING_EFFORTS } from '../task/input.ts';
import { hasUncleanText, isTooDeep } from '../task/json.ts';
import { MAX_LIMIT_NANO_USD, parseUsd } from '../task/money.ts';
import { isCleanText, utf8Bytes } from '../task/text.ts';
import { id } from './schemas.ts';

const cleanText = z.string().refine(isCleanText, 'a text without NUL and lone surrogates');
const MAX_TOKENS = 100_000_000;

const usd = z
  .union([z.string(), z.number()])
  .refine((value) => {
    const nano = parseUsd(value);
    return nano !== undefined && nano <= MAX_LIMIT_NANO_USD;
  })
  .describe('USD from 0 to 9000000 with at most 9 decimals; best as a string');

const message = z.strictObject({
  role: z.enum(['system', 'user', 'assistant']),
  content: z.union([cleanText, z.array(z.strictObject({ type: z.literal('text'), text: cleanText })).min(1)]),
});

const responseFormat = z
  .union([
    z.enum(['text', 'json']),
    z.strictObject({ type: z.enum(['text', 'json']) }),
    z.strictObject({
      type: z.literal('json_schema'),
      name: z
        .string()
        .regex(/^[A-Za-z0-9_-]{1,64}$/)
        .optional(),
      schema: z.record(z.string(), z.unknown()),
    }),
  ])
  .refine((format) => !hasUncleanText(format));

const taskInputFields = {
  query: cleanText
    .refine((text) => text.trim() !== '')
    .optional()
    .describe('A question or an order; instead of `messages`'),
  messages: z
    .array(message)
    .min(1)
    .max(1000)
    .refine((all) => all.some(({ role, content }) => role === 'user' && JSON.stringify(content).length > 2))
    .optional()
    .describe('A conversation with at least one user message; instead of `query`'),
  tenantId: id.optional().default('default'),
  userId: id,
  sessionId: id.optional(),
  strategy: z.enum(['auto', 'simple']).optional().default('auto'),
  tier: z
    .enum(['small', 'medium', 'large'])
    .optional()
    .describe('Size class of the model; instead of `model`'),
  model: z
    .string()
    .max(200)
    .regex(/^[A-Za-z0-9._-]+\/\S+$/)
    .refine(isCleanText)
    .optional()
    .describe('As "provider/model"'),
  maxOutputTokens: z.number().int().min(1).max(10_000_000).optional(),
  temperature: z.number().min(0).max(2).optional(),
  reasoningEffort: z
    .enum(REASONING_EFFORTS)
    .optional()
    .describe('How hard the model is asked to think; models that do not reason answer without it'),
  responseFormat: responseFormat.optional(),
  tools: z.array(id).max(64).optional().default([]),
  budget: z
    .strictObject({
      usd: usd.optional(),
      tokens: z.number().int().min(0).max(MAX_TOKENS).optional(),
      onExceeded: z
        .enum(EXCEEDED_POLICIES)
        .optional()
        .default('refuse')
        .describe('What to do with a call that a budget has no room for'),
    })
    .optional()
    .describe('Limits of this task; absent: the configured defaults'),
  approval: z
    .strictObject({
      before: z.enum(['never']).optional().default('never'),
      timeoutSeconds: z.number().int().min(1).max(31_536_000).optional().default(86_400),
      onTimeout: z.enum(['reject', 'approve']).optional().default('reject'),
    })
    .optional()
    .describe('How long `onExceeded: ask` waits for a decision, and what then'),
  priority: z.enum(['critical', 'high', 'normal', 'low']).optional().default('normal'),
  deadline: z
    .string()
    .regex(/^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}(:\d{2}(\.\d{1,9})?)?(Z|[+-]\d{2}:\d{2})$/)
    .refine((text) => !Number.isNaN(Date.parse(text)))
    .optional()
    .describe('ISO 8601 with a zone'),
  abort: z
    .enum(ABORT_POLICIES)
    .optional()
    .default('cancel')
    .describe('What a cancelled task does with its running call'),
  labels: z
    .record(id, z.string().max(256).refine(isCleanText))
    .refine((labels) => Object.keys(labels).length <= 20)
    .optional()
    .default({}),
} as const;

export const taskInput = z
  .strictObject(taskInputFields)
  .refine(
    (input) => (input.query === undefined) !== (input.messages === undefined),
    'one of query and messages',
  )
  .refine((input) => input.tier === undefined || input.model === undefined, 'at most one of tier and model')
  .refine(
    (input) => !isTooDeep(input) && utf8Bytes(JSON.stringify(input)) <= MAX_INPUT_BYTES,
    'at most 1 MiB',
  )
  .describe('One of `query` and `messages`; at most one of `tier` and `model`; at most 1 MiB')
  // The document adds `Input` to the name.
  .meta({ id: 'Submission' });
