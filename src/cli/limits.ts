// `weir limits`: which rate limits hold now, what providers taught, and what is left; with --breakers the circuit breakers instead.

import type { RateLimitsView } from '../client/gateway-client.ts';
import type { CliEnvironment } from '../config.ts';
import type { AddressFlags } from './addresses.ts';
import { runBreakers } from './breakers.ts';
import { openGateway } from './connect.ts';
import { dim, say, table } from './print.ts';

export type LimitsOptions = AddressFlags & {
  readonly tenant?: string;
  readonly breakers?: boolean;
  readonly json?: boolean;
};

export async function runLimits(options: LimitsOptions, environment: CliEnvironment): Promise<void> {
  if (options.breakers === true) return runBreakers(options, environment);
  const view = await openGateway(options, environment).rateLimits(options.tenant);
  if (options.json === true) say(JSON.stringify(view, null, 2));
  else show(view);
}

const NONE = '–';

function show({ buckets }: RateLimitsView): void {
  const rows = buckets.flatMap(({ bucket, name, limits, blockedUntil }) => {
    const blocked = blockedUntil ?? '';
    if (limits.length === 0) return [[bucket, name, NONE, NONE, NONE, NONE, NONE, blocked]];
    return limits.map(({ dimension, configured, learnt, effective, remaining }, index) => [
      // Told once for each bucket.
      ...(index === 0 ? [bucket, name] : ['', '']),
      dimension,
      toText(configured),
      learnt === undefined ? NONE : learntText(learnt),
      toText(effective),
      toText(remaining),
      index === 0 ? blocked : '',
    ]);
  });
  table(
    [
      ...['bucket', 'name', 'limit'].map((title) => ({ title })),
      ...['configured', 'learnt', 'in force', 'left'].map((title) => ({ title, right: true })),
      { title: 'blocked until' },
    ],
    rows,
  );
  say(dim('a minute, or at a time; learnt limits are as of when they were learnt, and recover from there'));
}

function toText(amount: number | undefined): string {
  return amount === undefined ? NONE : String(Math.floor(amount));
}

function learntText({ limit, stated }: { readonly limit: number; readonly stated?: number }): string {
  const text = toText(limit);
  return stated === undefined || stated === limit ? text : `${text} of ${toText(stated)}`;
}
