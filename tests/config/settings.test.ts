import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { parse, stringify } from 'yaml';
import { at, faultsOf, load } from './overlay.ts';
import { ROWS } from './setting-rows.ts';

const PRICE = 'a price in USD per million tokens from 0 to 1000000 with at most 9 decimals';
const DELAY =
  'a duration from 0ms to 10m with a unit (ms, s, m, h, d), in MAX_BACKPRESSURE_DELAY_MS also bare milliseconds';
const DEFAULT_FILE = new URL('../../config/default.yaml', import.meta.url);

describe('every key of default.yaml', () => {
  it('has a row in this table', () => {
    expect(ROWS.map((row) => row.key).sort()).toEqual(
      leaves(parse(readFileSync(DEFAULT_FILE, 'utf8'))).sort(),
    );
  });

  it('tells its environment name in the file', () => {
    const text = readFileSync(DEFAULT_FILE, 'utf8');
    for (const { env } of ROWS) {
      const isInGroup = /^(CB|WORKER_(ACT|WF))_/.test(env);
      expect(text).toContain(isInGroup ? (/^(CB_[A-Z]+|WORKER_(ACT|WF))_/.exec(env)?.[0] ?? env) : `[${env}`);
    }
  });

  it.each(ROWS)('$key is read from a file', ({ key, file, resolved, value }) => {
    const nested = key.split('.').reduceRight<unknown>((inner, part) => ({ [part]: inner }), file);
    expect(at(load({ files: { 'default.yaml': stringify(nested) } }), resolved ?? key)).toEqual(value);
  });

  it.each(ROWS)('$key is read from $env', ({ key, env, file, text, resolved, value }) => {
    const config = load({ env: { [env]: text ?? String(file) } });
    expect(at(config, resolved ?? key)).toEqual(value);
  });

  it.each([false, true])('is read from flags, as texts: %s', (asText) => {
    const flags = Object.fromEntries(ROWS.map(({ key, file }) => [key, asText ? String(file) : file]));
    const config = load({ flags });
    for (const { key, resolved, value } of ROWS)
      expect([key, at(config, resolved ?? key)]).toEqual([key, value]);
  });
});

describe('a bad value', () => {
  it.each([
    ['METRICS_PORT', '12abc', 'a whole number from 0 to 65535'],
    ['METRICS_PORT', ' 12', 'a whole number from 0 to 65535'],
    ['METRICS_PORT', '1e3', 'a whole number from 0 to 65535'],
    ['METRICS_PORT', '0x10', 'a whole number from 0 to 65535'],
    ['METRICS_PORT', '-1', 'a whole number from 0 to 65535'],
    ['METRICS_PORT', '1.5', 'a whole number from 0 to 65535'],
    ['METRICS_PORT', '65536', 'a whole number from 0 to 65535'],
    ['WORKER_ACT_HIGH', '0', 'a whole number from 1 to 10000'],
    ['WORKER_ACT_HIGH', '10001', 'a whole number from 1 to 10000'],
    ['PROVIDER_RATE_CONTROL_ENABLED', 'yes', 'true or false'],
    ['PROVIDER_RATE_CONTROL_ENABLED', '1', 'true or false'],
    ['PROVIDER_RATE_CONTROL_ENABLED', 'FALSE', 'true or false'],
    ['PRIORITY_QUEUES', 'no', 'on or off (or true or false)'],
    ['WEIR_AUTH', 'none', 'one of keys, off'],
    ['WEIR_BUDGET_UNKNOWN_PRICE', 'free', 'one of refuse, ceiling, flag'],
    ['WEIR_BUDGET_CEILING_INPUT', '-1', PRICE],
    ['WEIR_BUDGET_CEILING_OUTPUT', '1e3', PRICE],
    ['WEIR_BUDGET_CEILING_OUTPUT', '1000000.01', PRICE],
    ['WEIR_BUDGET_ZONE', 'Europe/Atlantis', 'an IANA time zone such as UTC or Europe/Berlin'],
    ['WEIR_BUDGET_ZONE', '+02:00', 'an IANA time zone such as UTC or Europe/Berlin'],
    [
      'WEIR_BUDGET_WEEK_START',
      'Monday',
      'one of sunday, monday, tuesday, wednesday, thursday, friday, saturday',
    ],
    ['BACKPRESSURE_THRESHOLD', '80%', 'a number from 0 to 1'],
    ['BACKPRESSURE_THRESHOLD', '1.1', 'a number from 0 to 1'],
    ['BACKPRESSURE_THRESHOLD', '-0', 'a number from 0 to 1'],
    ['MAX_BACKPRESSURE_DELAY_MS', '600001', DELAY],
    ['MAX_BACKPRESSURE_DELAY_MS', '1e3', DELAY],
    ['MAX_BACKPRESSURE_DELAY_MS', '5 s', DELAY],
    ['WEIR_RETENTION_LEDGER', '61d', 'a duration from 62d to 3650d with a unit (ms, s, m, h, d)'],
    ['WEIR_RETENTION_TEXTS', '30', 'a duration from 1h to 3650d with a unit (ms, s, m, h, d)'],
    ['WEIR_CALL_LEASE', '10', 'a duration from 100ms to 10m with a unit (ms, s, m, h, d)'],
    ['WEIR_CALL_LEASE', '-1s', 'a duration from 100ms to 10m with a unit (ms, s, m, h, d)'],
    ['WEIR_CALL_LEASE', '11m', 'a duration from 100ms to 10m with a unit (ms, s, m, h, d)'],
    ['WEIR_CALL_LEASE', '5 s', 'a duration from 100ms to 10m with a unit (ms, s, m, h, d)'],
    ['WEIR_CALL_HEARTBEAT_TIMEOUT', '1999ms', 'a duration from 2s to 10m with a unit (ms, s, m, h, d)'],
    ['WEIR_QUEUE_PREFIX', 'a{b}', 'a name of 1 to 40 characters out of A-Z a-z 0-9 _ -'],
    ['WEIR_REDIS_KEY_PREFIX', 'a'.repeat(41), 'a name of 1 to 40 characters out of A-Z a-z 0-9 _ -'],
    ['WEIR_POSTGRES_SCHEMA', 'Weir', 'a name of 1 to 40 characters out of a-z 0-9 _'],
    ['WEIR_GATEWAY_HOST', 'http://host', 'a host name or an IP address'],
  ])('refuses %s=%s', (name, text, expected) => {
    const [fault, ...others] = faultsOf({ env: { [name]: text } });
    expect(others).toEqual([]);
    expect(fault).toEqual({
      key: ROWS.find((row) => row.env === name)?.key,
      expected,
      got: JSON.stringify(text),
      source: `environment ${name}`,
    });
  });

  it.each([
    ['metrics: {port: "8080"}', 'metrics.port', 'a whole number from 0 to 65535', '"8080"'],
    ['metrics: {port: 1.5}', 'metrics.port', 'a whole number from 0 to 65535', '1.5'],
    ['metrics: {port: null}', 'metrics.port', 'a whole number from 0 to 65535', 'null'],
    ['metrics: {port: .nan}', 'metrics.port', 'a whole number from 0 to 65535', 'null'],
    ['rate: {enabled: "true"}', 'rate.enabled', 'true or false', '"true"'],
    ['rate: {enabled: 1}', 'rate.enabled', 'true or false', '1'],
    [
      'rate: true',
      'rate',
      'a map with enabled, horizon, rpmBurst, tpmBurst, reservedShare, agedShare',
      'a boolean (not shown)',
    ],
    ['call: {lease: 10}', 'call.lease', 'a duration from 100ms to 10m with a unit (ms, s, m, h, d)', '10'],
    ['budget: {backpressure: {maxDelay: 5000}}', 'budget.backpressure.maxDelay', DELAY, '5000'],
    [
      'budget: {backpressure: {threshold: "0.8"}}',
      'budget.backpressure.threshold',
      'a number from 0 to 1',
      '"0.8"',
    ],
    ['metric: {port: 1}', 'metric', 'no such key', 'a map'],
    ['metrics: {prot: 1}', 'metrics.prot', 'no such key', 'a number'],
    ['[1]', '', /^a map with auth, log/, 'a list (not shown)'],
  ])('refuses a file with %s', (line, key, expected, got) => {
    const faults = faultsOf({ files: { 'default.yaml': `# a comment\n${line}\n` } });
    const source = expect.stringMatching(/^default\.yaml(:2)?$/);
    expect(faults).toEqual([
      {
        key,
        expected: typeof expected === 'string' ? expected : expect.stringMatching(expected),
        got,
        source,
      },
    ]);
  });
});

function leaves(value: unknown, prefix = ''): string[] {
  if (typeof value !== 'object' || value === null) return [prefix];
  return Object.entries(value).flatMap(([name, inner]) =>
    leaves(inner, prefix === '' ? name : `${prefix}.${name}`),
  );
}
