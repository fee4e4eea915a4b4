// The usage report: sums of the ledger, grouped and filtered, as JSON or CSV; and bringing the ledger to another price list.

import { z } from 'zod';
import type { RerateView, UsageReport, UsageSums } from '../client/wire.ts';
import { USAGE_GROUPS, type UsageGroup, type UsageRow, type UsageSummary } from '../stores/usage.ts';
import { formatUsd } from '../task/money.ts';
import { NO_USAGE_TOTALS, type UsageTotals } from '../task/usage.ts';
import { type CsvCell, toCsv } from './csv.ts';
import { invalidRequest } from './errors.ts';
import type { App, RouteParts } from './parts.ts';
import { formatPlace, parsePlace } from './rerate-place.ts';
import { problemAnswer, queryList, queryNumber, toList } from './schemas.ts';

const DEFAULT_GROUPS = 1_000;
const MAX_GROUPS = 10_000;
/** Attempts that one request looks at; the answer says where to go on. */
const RERATE_LIMIT = 5_000;

const count = z
  .union([z.number(), z.string()])
  .describe('A number; decimal text beyond 2^53, which JSON numbers do not count exactly');

const sums = {
  calls: z.number().describe('Each where its last attempt is: groups add up to the total'),
  attempts: z.number().describe('Requests that reached a provider, or may have'),
  usage: z
    .object({
      inputTokens: count,
      cachedInputTokens: count,
      cacheWriteTokens: count,
      outputTokens: count,
      reasoningTokens: count,
    })
    .describe('`inputTokens` and `outputTokens` are totals, the others parts of them'),
  costUsd: z.string().describe('What providers took'),
  billableUsd: z.string().describe('What users pay'),
};

const report: z.ZodType<UsageReport> = z
  .object({
    groups: z
      .array(z.looseObject(sums))
      .describe('The dearest first, each with a key for every group asked for'),
    total: z.object(sums),
    truncated: z.literal(true).exactOptional().describe('There are more groups than `limit`'),
  })
  .meta({ id: 'UsageReport' });

const name = z.string().min(1).max(200).optional();
const TIME = /^\d{4}-\d{2}-\d{2}(T\d{2}:\d{2}(:\d{2}(\.\d{1,9})?)?(Z|[+-]\d{2}:\d{2}))?$/;
const time = z
  .string()
  .refine((text) => TIME.test(text) && isDate(text.slice(0, 10)) && !Number.isNaN(Date.parse(text)), {
    error: 'a date, or an ISO 8601 time with a zone',
  });

const querystring = z.strictObject({
  group: queryList.optional().describe(`Any of ${USAGE_GROUPS.join(', ')}; none: the total alone`),
  tenant: name,
  user: name,
  session: name,
  task: name,
  model: name,
  provider: name,
  day: z
    .string()
    .refine((text) => /^\d{4}-\d{2}-\d{2}$/.test(text) && isDate(text), 'a date such as 2026-01-31')
    .optional()
    .describe('A date (UTC)'),
  from: time.optional().describe('A date (UTC) or a time, included; calls count by the moment of their hold'),
  to: time.optional().describe('A date (UTC) or a time, excluded'),
  limit: queryNumber(1, MAX_GROUPS)
    .optional()
    .describe(`Most groups to answer; left out: ${DEFAULT_GROUPS}, for CSV ${MAX_GROUPS}`),
  format: z.enum(['json', 'csv']).optional().describe('Left out: by `Accept`'),
});

const rerateInput = z.strictObject({
  from: time.describe('A date (UTC) or a time, included; attempts count by the moment of their hold'),
  to: time.describe('A date (UTC) or a time, excluded'),
  model: name,
  dryRun: z.boolean({ error: 'true or false' }).optional().describe('Tells what would be booked'),
  after: z.string().optional().describe('`next` of the answer before'),
});

const rerated: z.ZodType<RerateView> = z
  .object({
    priceHash: z.string().describe('Of the price list that was applied'),
    attempts: z.number().describe('Attempts that were looked at'),
    adjusted: z.number().describe('Attempts that cost another amount now'),
    differenceUsd: z.string(),
    models: z.array(z.object({ model: z.string(), adjusted: z.number(), differenceUsd: z.string() })),
    unknownPrices: z
      .array(z.object({ model: z.string(), attempts: z.number() }))
      .describe('Attempts whose price is not known: they stay as they are'),
    appliedBefore: z
      .number()
      .describe(
        'Attempts that this very list was applied to before, and another one since: they stay as they are',
      ),
    next: z.string().exactOptional().describe('Send it as `after` to go on; absent when the period is done'),
  })
  .meta({ id: 'Rerate' });

export function registerUsage(app: App, parts: RouteParts): void {
  app.get(
    '/usage',
    {
      schema: {
        tags: ['usage'],
        summary: 'What was used and what it cost',
        description:
          'CSV has no room to say that groups were left out: the header `Weir-Truncated: true` says it. Of months whose single rows were ' +
          'dropped there are sums of days: such a day counts as a whole, where it begins.',
        querystring,
        response: {
          200: {
            description: 'The report',
            content: { 'application/json': { schema: report }, 'text/csv': { schema: z.string() } },
          },
          default: problemAnswer,
        },
      },
    },
    async ({ query, headers }, reply) => {
      const groups = readGroups(query.group);
      const isCsv =
        query.format === undefined ? headers.accept?.includes('text/csv') === true : query.format === 'csv';
      const limit = Number(query.limit ?? (isCsv ? MAX_GROUPS : DEFAULT_GROUPS));
      const { from, to, ...filter } = query;
      const times = { from: toDate(from), to: toDate(to) };
      const summary = await parts.stores.accounts.usage(groups, { ...filter, ...times }, limit);
      if (!isCsv) return reply.type('application/json').send(toReport(groups, summary));
      if (summary.isCut) reply.header('weir-truncated', 'true');
      return reply.type('text/csv; charset=utf-8').send(toReportCsv(groups, summary));
    },
  );

  app.post(
    '/usage/rerate',
    {
      schema: {
        tags: ['usage'],
        summary: 'Bring the ledger to the present price list',
        description:
          'Each difference becomes an adjustment of its attempt, once per price list. Looks at a part of a long period and says where to ' +
          'go on. Months whose single rows were dropped stay as they are.',
        body: rerateInput,
        response: { 200: rerated, default: problemAnswer },
      },
    },
    ({ body }) => rerate(parts, body),
  );
}

function isDate(day: string): boolean {
  const at = Date.parse(`${day}T00:00:00Z`);
  return !Number.isNaN(at) && new Date(at).toISOString().slice(0, 10) === day;
}

function toDate(text: string | undefined): Date | undefined {
  return text === undefined ? undefined : new Date(text);
}

function readGroups(given: string | readonly string[] | undefined): readonly UsageGroup[] {
  const names = toList(given);
  const unknown = names.filter((group) => !USAGE_GROUPS.some((known) => known === group));
  if (unknown.length > 0)
    throw invalidRequest(
      unknown.map((group) => ({
        path: 'group',
        expected: `some of ${USAGE_GROUPS.join(', ')}`,
        got: JSON.stringify(group.slice(0, 100)),
      })),
    );
  return names as readonly UsageGroup[]; // each is one of USAGE_GROUPS
}

function toReport(groups: readonly UsageGroup[], { groups: rows, total, isCut }: UsageSummary): UsageReport {
  return {
    groups: rows.map((row) => ({
      ...Object.fromEntries(groups.map((group, index) => [group, row.keys[index] ?? null])),
      ...toSums(row),
    })),
    total: toSums(total),
    ...(isCut ? { truncated: true } : {}),
  };
}

function toSums(row: UsageRow): UsageSums {
  const { calls, attempts, usage } = row;
  return {
    calls,
    attempts,
    usage: {
      inputTokens: toCount(usage.inputTokens),
      cachedInputTokens: toCount(usage.cachedInputTokens),
      cacheWriteTokens: toCount(usage.cacheWriteTokens),
      outputTokens: toCount(usage.outputTokens),
      reasoningTokens: toCount(usage.reasoningTokens),
    },
    costUsd: formatUsd(row.nanoUsd),
    billableUsd: formatUsd(row.billableNanoUsd),
  };
}

function toCount(tokens: bigint): number | string {
  const isExact = tokens <= BigInt(Number.MAX_SAFE_INTEGER) && tokens >= BigInt(Number.MIN_SAFE_INTEGER);
  return isExact ? Number(tokens) : tokens.toString();
}

const TOKENS = Object.keys(NO_USAGE_TOTALS) as readonly (keyof UsageTotals)[]; // its keys are those of its type

function toReportCsv(groups: readonly UsageGroup[], { groups: rows, total }: UsageSummary): string {
  return toCsv(
    [...groups, 'calls', 'attempts', ...TOKENS, 'costUsd', 'billableUsd'],
    (groups.length === 0 ? [total] : rows).map(toCells),
  );
}

function toCells(row: UsageRow): readonly CsvCell[] {
  const { calls, attempts, usage, costUsd, billableUsd } = toSums(row);
  const figures = [calls, attempts, ...TOKENS.map((part) => usage[part]), costUsd, billableUsd];
  return [...row.keys, ...figures.map((figure) => ({ figure }))];
}

async function rerate(parts: RouteParts, body: z.infer<typeof rerateInput>): Promise<RerateView> {
  const { from, to, model, dryRun = false } = body;
  const after = body.after === undefined ? undefined : parsePlace(body.after);
  if (body.after !== undefined && after === undefined)
    throw invalidRequest([{ path: 'after', expected: '`next` of an answer', got: 'another text' }]);
  const period = { from: new Date(from), to: new Date(to), model, after };
  const done = await parts.rerate({ ...period, dryRun, limit: RERATE_LIMIT });
  return {
    priceHash: done.priceHash,
    attempts: done.attempts,
    adjusted: done.adjusted,
    differenceUsd: formatUsd(done.differenceNanoUsd),
    models: [...done.models].map(([of, { adjusted, differenceNanoUsd }]) => ({
      model: of,
      adjusted,
      differenceUsd: formatUsd(differenceNanoUsd),
    })),
    unknownPrices: [...done.unknown].map(([of, attempts]) => ({ model: of, attempts })),
    appliedBefore: done.appliedBefore,
    ...(done.next === undefined ? {} : { next: formatPlace(done.next) }),
  };
}
