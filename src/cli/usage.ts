// `weir usage`: sums of the ledger as a table with bars, as CSV or as JSON; and bringing the ledger to another price list.

import type { GatewayClient, RerateView, UsageReport } from '../client/gateway-client.ts';
import type { CliEnvironment } from '../config.ts';
import { formatUsd, parseUsd } from '../task/money.ts';
import type { AddressFlags } from './addresses.ts';
import { openGateway } from './connect.ts';
import { CliError } from './fault.ts';
import { type Column, dim, say, table, tell, terminalSize, write } from './print.ts';

export type UsageOptions = AddressFlags & {
  readonly group: string;
  readonly tenant?: string;
  readonly user?: string;
  readonly session?: string;
  readonly task?: string;
  readonly model?: string;
  readonly provider?: string;
  readonly day?: string;
  readonly from?: string;
  readonly to?: string;
  readonly limit?: number;
  readonly csv?: boolean;
  readonly json?: boolean;
  readonly rerate?: boolean;
  readonly dryRun?: boolean;
};

export async function runUsage(options: UsageOptions, environment: CliEnvironment): Promise<void> {
  if (options.rerate === true) return runRerate(options, openGateway(options, environment));
  if (options.dryRun === true) throw new CliError('--dry-run belongs to --rerate');
  const { tenant, user, session, task, model, provider, day, from, to, limit } = options;
  const group = options.group
    .split(',')
    .map((name) => name.trim())
    .filter((name) => name !== '');
  const query = { group, tenant, user, session, task, model, provider, day, from, to, limit };
  const gateway = openGateway(options, environment);
  if (options.csv === true) {
    const { csv, isCut } = await gateway.usageCsv(query);
    write(csv);
    if (isCut) tell('weir: there are more groups than these (--limit)');
    return;
  }
  const report = await gateway.usage(query);
  if (options.json === true) say(JSON.stringify(report, null, 2));
  else showUsage(group, report);
}

const LONGEST_BAR = 24;

function showUsage(group: readonly string[], report: UsageReport): void {
  const costs = report.groups.map(({ costUsd }) => toNano(costUsd));
  const dearest = costs.reduce((most, nano) => (nano > most ? nano : most), 0n);
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
  const total = row(
    group.map((_, index) => (index === 0 ? 'total' : '')),
    report.total,
    '',
  );
  const lines = report.groups.map((sums) =>
    row(
      group.map((name) => String(sums[name] ?? '–')),
      sums,
      '',
    ),
  );
  const length = barLength(columns, [...lines, total]);
  table(columns, [
    ...lines.map((cells, index) => [...cells.slice(0, -1), bar(costs[index] ?? 0n, dearest, length)]),
    total,
  ]);
  if (report.truncated === true) say(dim('there are more groups than these (--limit)'));
}

/** What the terminal has left beside the figures, at most two dozen characters; no bars at all where that would be a stump. */
function barLength(columns: readonly Column[], lines: readonly (readonly string[])[]): number {
  const widths = columns.map(({ title }, index) =>
    lines.reduce((most, line) => Math.max(most, line[index]?.length ?? 0), title.length),
  );
  const left = terminalSize().columns - widths.reduce((sum, width) => sum + width + 2, 0);
  return process.stdout.isTTY === true && left < LONGEST_BAR ? (left < 4 ? 0 : left) : LONGEST_BAR;
}

const EIGHTHS = ['', '▏', '▎', '▍', '▌', '▋', '▊', '▉'];

/** A share of the dearest, in eighths of a block; what cost anything at all is seen. */
function bar(nano: bigint, dearest: bigint, length: number): string {
  if (nano <= 0n || dearest <= 0n || length === 0) return '';
  const eighths = Math.max(1, Number((nano * BigInt(length * 8) * 2n + dearest) / (dearest * 2n)));
  return '█'.repeat(Math.floor(eighths / 8)) + (EIGHTHS[eighths % 8] ?? '');
}

/** The amounts of a report are decimals in USD; adjustments may have made one negative. */
function toNano(usd: string): bigint {
  const nano = parseUsd(usd.replace(/^-/, '')) ?? 0n;
  return usd.startsWith('-') ? -nano : nano;
}

async function runRerate(options: UsageOptions, gateway: GatewayClient): Promise<void> {
  const { from, to, model, dryRun = false } = options;
  if (from === undefined || to === undefined) throw new CliError('--rerate needs --from and --to');
  const others = ['tenant', 'user', 'session', 'task', 'provider', 'day'] as const;
  const refused = others.find((name) => options[name] !== undefined);
  if (refused !== undefined) throw new CliError(`--rerate takes --from, --to and --model, not --${refused}`);
  const parts: RerateView[] = [];
  let after: string | undefined;
  do {
    const part = await gateway.rerate({ from, to, model, dryRun, after });
    parts.push(part);
    after = part.next;
  } while (after !== undefined);
  const done = mergeRerates(parts);
  if (options.json === true) return say(JSON.stringify(done, null, 2));
  showRerate(done, dryRun);
}

type Rerates = Omit<RerateView, 'next'>;

function mergeRerates(parts: readonly RerateView[]): Rerates {
  const models = new Map<string, { adjusted: number; nano: bigint }>();
  const unknown = new Map<string, number>();
  for (const part of parts) {
    for (const { model, adjusted, differenceUsd } of part.models) {
      const of = models.get(model) ?? { adjusted: 0, nano: 0n };
      models.set(model, { adjusted: of.adjusted + adjusted, nano: of.nano + toNano(differenceUsd) });
    }
    for (const { model, attempts } of part.unknownPrices)
      unknown.set(model, (unknown.get(model) ?? 0) + attempts);
  }
  const sum = (of: (part: RerateView) => number) => parts.reduce((all, part) => all + of(part), 0);
  return {
    priceHash: parts.at(-1)?.priceHash ?? '',
    attempts: sum((part) => part.attempts),
    adjusted: sum((part) => part.adjusted),
    differenceUsd: formatUsd(parts.reduce((all, part) => all + toNano(part.differenceUsd), 0n)),
    models: [...models].map(([model, { adjusted, nano }]) => ({
      model,
      adjusted,
      differenceUsd: formatUsd(nano),
    })),
    unknownPrices: [...unknown].map(([model, attempts]) => ({ model, attempts })),
    appliedBefore: sum((part) => part.appliedBefore),
  };
}

function showRerate(done: Rerates, dryRun: boolean): void {
  const columns = [{ title: 'model' }, ...['attempts', 'USD'].map((title) => ({ title, right: true }))];
  table(columns, [
    ...done.models.map(({ model, adjusted, differenceUsd }) => [model, String(adjusted), differenceUsd]),
    ['total', String(done.adjusted), done.differenceUsd],
  ]);
  const would = dryRun ? 'would be adjusted' : 'were adjusted';
  say(dim(`${done.adjusted} of ${done.attempts} attempts ${would} to the price list ${done.priceHash}`));
  for (const { model, attempts } of done.unknownPrices)
    tell(
      `weir: ${attempts} attempts of ${model} stay as they are: the price list does not know its price then`,
    );
  if (done.appliedBefore > 0)
    tell(
      `weir: ${done.appliedBefore} attempts stay as they are: this list was applied before, and another one since`,
    );
}
