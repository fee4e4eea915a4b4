// `weir limits` as a process, against a stand-in of the gateway.

import { expect, it } from 'vitest';
import type { RateLimitsView } from '../../src/client/wire.ts';
import { sendJson, startTinyGateway } from '../client/tiny-gateway.ts';
import { openShell } from './run-weir.ts';

const AT = '2026-10-21T07:28:00.000Z';

const LIMITS: RateLimitsView = {
  buckets: [
    {
      ...{ bucket: 'provider', name: 'openai', blockedUntil: AT },
      limits: [
        { dimension: 'rpm', configured: 600, effective: 600, remaining: 50 },
        { dimension: 'maxParallel', configured: 100 },
      ],
    },
    {
      ...{ bucket: 'model', name: 'openai/a' },
      limits: [
        { dimension: 'rpm', learnt: { limit: 42.5, stated: 60, at: AT }, effective: 43.9, remaining: 0 },
        { dimension: 'tpm', learnt: { limit: 900, stated: 900, at: AT }, effective: 900, remaining: 7 },
      ],
    },
    { bucket: 'provider', name: 'other', limits: [] },
  ],
};

it('shows a line for each limit, and what a provider taught', async () => {
  await using server = await startTinyGateway((response) => sendJson(response, 200, LIMITS));
  await using shell = await openShell();
  const shown = await shell.weir(['limits', '--tenant', 'acme', '--url', server.url]);
  expect(shown.code).toBe(0);
  expect(server.asked[0]?.path).toBe('/api/v1/limits?tenantId=acme');
  const lines = shown.stdout.split('\n').map((line) => line.trim().split(/ {2,}/));
  expect(lines.slice(0, 6)).toEqual([
    ['bucket', 'name', 'limit', 'configured', 'learnt', 'in force', 'left', 'blocked until'],
    ['provider', 'openai', 'rpm', '600', '–', '600', '50', AT],
    ['maxParallel', '100', '–', '–', '–'],
    ['model', 'openai/a', 'rpm', '–', '42 of 60', '43', '0'],
    ['tpm', '–', '900', '900', '7'],
    ['provider', 'other', '–', '–', '–', '–', '–'],
  ]);
});

it('shows them as they came with --json', async () => {
  await using server = await startTinyGateway((response) => sendJson(response, 200, LIMITS));
  await using shell = await openShell();
  const { stdout } = await shell.weir(['limits', '--json', '--url', server.url]);
  expect(JSON.parse(stdout)).toEqual(LIMITS);
  expect(server.asked[0]?.path).toBe('/api/v1/limits');
});
