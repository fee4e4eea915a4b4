// `weir usage`: sums of the ledger as a table with bars, as CSV or as JSON.

import type { UsageReport } from '../client/gateway-client.ts';
import type { CliEnvironment } from '../config.ts';
import type { AddressFlags } from './addresses.ts';
import { openGateway } from './connect.ts';
import { type Column, dim, say, table } from './print.ts';

export type UsageOptions = AddressFlags & {
  readonly group: string;
  readonly tenant?: string;
  readonly user?: string;
  readonly session?: string;
  readonly task?: string;
  readonly model?: string;
  readonly provider?: string;
  readonly from?: string;
  readonly to?: string;
  readonly csv?: boolean;
  readonly json?: boolean;
};

export async function runUsage(options: UsageOptions, environment: CliEnvironment): Promise<void> {
  const { tenant, user, session, task, model, provider, from, to } = options;
  const group = options.group.split(',').map((name) => name.trim());
  const report = await openGateway(options, environment).usage({
    ...{ group, tenant, user, session, task, model, provider, from, to },
  });
  if (options.json === true) say(JSON.stringify(report, null, 2));
  else if (options.csv === true) showCsv(group, report);
  else showUsage(group, report);
}

const CSV_FIGURES = [
  'calls',
  'attempts',
  'inputTokens',
  'cachedInputTokens',
  'cacheWriteTokens',
  'outputTokens',
  'reasoningTokens',
  'costUsd',
  'billableUsd',
] as const;

function showCsv(group: readonly string[], report: UsageReport): void {
  const line = (cells: readonly unknown[]) =>
    say(
      cells
        .map((cell) => String(cell ?? ''))
        .map((cell) => (/[",\r\n]/.test(cell) ? `"${cell.replaceAll('"', '""')}"` : cell))
        .join(','),
    );
  line([...group, ...CSV_FIGURES]);
  for (const row of report.groups) {
    const figures: Readonly<Record<string, unknown>> = { ...row, ...row.usage };
    line([...group.map((name) => row[name]), ...CSV_FIGURES.map((name) => figures[name])]);
  }
}

const BAR_LENGTH = 24;

function showUsage(group: readonly string[], report: UsageReport): void {
  const dearest = report.groups.reduce((most, { costUsd }) => Math.max(most, Number(costUsd)), 0);
  const row = (keys: readonly string[], sums: UsageReport['total'], bar: string) => [
    ...keys,
    String(sums.calls),
    String(sums.attempts),
    String(sums.usage.inputTokens),
    String(sums.usage.outputTokens),
    sums.costUsd,
    sums.billableUsd,
    bar,
  ];
  const columns: readonly Column[] = [
    ...group.map((title) => ({ title })),
    ...['calls', 'attempts', 'tokens in', 'out', 'USD', 'billed'].map((title) => ({ title, right: true })),
    { title: '' },
  ];
  table(columns, [
    ...report.groups.map((sums) =>
      row(
        group.map((name) => String(sums[name] ?? '–')),
        sums,
        bar(Number(sums.costUsd), dearest),
      ),
    ),
    row(
      group.map((_, index) => (index === 0 ? 'total' : '')),
      report.total,
      '',
    ),
  ]);
  if (report.truncated === true) say(dim('there are more groups than these'));
}

/** A share of the dearest, in eighths of a block; what cost anything at all is seen. */
function bar(amount: number, most: number): string {
  if (amount <= 0 || most <= 0) return '';
  const eighths = Math.max(1, Math.round((amount / most) * BAR_LENGTH * 8));
  return '█'.repeat(Math.floor(eighths / 8)) + (['', '▏', '▎', '▍', '▌', '▋', '▊', '▉'][eighths % 8] ?? '');
}
