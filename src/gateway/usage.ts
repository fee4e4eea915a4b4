// The usage report: sums of the ledger, grouped and filtered, as JSON or CSV.

import { z } from 'zod';
import type { UsageReport, UsageSums } from '../client/wire.ts';
import { USAGE_GROUPS, type UsageGroup, type UsageRow } from '../stores/accounts.ts';
import { formatUsd } from '../task/money.ts';
import { NO_USAGE_TOTALS } from '../task/usage.ts';
import { type CsvCell, toCsv } from './csv.ts';
import { invalidRequest } from './errors.ts';
import type { App, RouteParts } from './parts.ts';
import { problemAnswer, queryList, queryNumber, toList, usage } from './schemas.ts';

const DEFAULT_GROUPS = 1_000;
const MAX_GROUPS = 10_000;

const sums = { calls: z.number(), attempts: z.number(), usage, costUsd: z.string(), billableUsd: z.string() };

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
  .refine(
    (text) => TIME.test(text) && !Number.isNaN(Date.parse(text)),
    'a date, or an ISO 8601 time with a zone',
  )
  .optional();

const querystring = z.strictObject({
  group: queryList.optional().describe(`Any of ${USAGE_GROUPS.join(', ')}; none: the total alone`),
  tenant: name,
  user: name,
  session: name,
  task: name,
  model: name,
  provider: name,
  from: time.describe('A date (UTC) or a time, included'),
  to: time.describe('A date (UTC) or a time, excluded'),
  limit: queryNumber(1, MAX_GROUPS).optional(),
  format: z.enum(['json', 'csv']).optional().describe('Left out: by `Accept`'),
});

export function registerUsage(app: App, parts: RouteParts): void {
  app.get(
    '/usage',
    {
      schema: {
        tags: ['usage'],
        summary: 'What was used and what it cost',
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
      const answer = await makeReport(parts, groups, query);
      const format = query.format ?? (headers.accept?.includes('text/csv') === true ? 'csv' : 'json');
      if (format === 'json') return reply.type('application/json').send(answer);
      return reply.type('text/csv; charset=utf-8').send(toReportCsv(groups, answer));
    },
  );
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

async function makeReport(
  { stores: { accounts } }: RouteParts,
  groups: readonly UsageGroup[],
  query: z.infer<typeof querystring>,
): Promise<UsageReport> {
  const { tenant, user, session, task, model, provider } = query;
  const [from, to] = [query.from, query.to].map((text) => (text === undefined ? undefined : new Date(text)));
  const filter = { tenant, user, session, task, model, provider, from, to };
  const limit = Number(query.limit ?? DEFAULT_GROUPS);
  const [rows, [total]] = await Promise.all([
    groups.length === 0 ? [] : accounts.usage(groups, filter, limit + 1),
    accounts.usage([], filter, 1),
  ]);
  return {
    groups: rows.slice(0, limit).map((row) => ({
      ...Object.fromEntries(groups.map((group, index) => [group, row.keys[index] ?? null])),
      ...toSums(row),
    })),
    total: toSums(total),
    ...(rows.length > limit ? { truncated: true } : {}),
  };
}

function toSums(row: UsageRow | undefined): UsageSums {
  return {
    calls: row?.calls ?? 0,
    attempts: row?.attempts ?? 0,
    usage: row?.usage ?? NO_USAGE_TOTALS,
    costUsd: formatUsd(row?.nanoUsd ?? 0n),
    billableUsd: formatUsd(row?.billableNanoUsd ?? 0n),
  };
}

function toReportCsv(groups: readonly UsageGroup[], { groups: rows, total }: UsageReport): string {
  const lines =
    groups.length === 0
      ? [toCells([], total)]
      : rows.map((row) =>
          toCells(
            groups.map((group) => row[group]),
            row,
          ),
        );
  return toCsv(
    [...groups, 'calls', 'attempts', ...Object.keys(NO_USAGE_TOTALS), 'costUsd', 'billableUsd'],
    lines,
  );
}

function toCells(keys: readonly unknown[], row: UsageSums): readonly CsvCell[] {
  const { calls, attempts, usage: used, costUsd, billableUsd } = row;
  const names = keys.map((key) => (typeof key === 'string' ? key : null));
  const tokens = Object.keys(NO_USAGE_TOTALS).map((part) => Number(Reflect.get(used, part)));
  return [...names, calls, attempts, ...tokens, costUsd, billableUsd];
}
