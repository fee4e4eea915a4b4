// `weir limits --breakers` as a process, against a stand-in of the gateway.

import { expect, it } from 'vitest';
import type { BreakersView } from '../../src/client/wire.ts';
import { sendJson, startTinyGateway } from '../client/tiny-gateway.ts';
import { openShell } from './run-weir.ts';

const SETTINGS = {
  enabled: true,
  intervalMs: 60_000,
  timeoutMs: 30_000,
  failureThreshold: 5,
  successThreshold: 2,
  maxRequests: 1,
};

const VIEW: BreakersView = {
  level: 'minor',
  down: ['llm:a'],
  breakers: [
    {
      name: 'llm:a/x',
      kind: 'llm',
      scope: 'fleet',
      state: 'open',
      since: '2026-01-31T10:00:00.000Z',
      retryAfterMs: 12_300,
      calls: 20,
      failures: 9,
      settings: SETTINGS,
    },
    {
      name: 'redis',
      kind: 'redis',
      scope: 'process',
      state: 'closed',
      retryAfterMs: 0,
      calls: 7,
      failures: 0,
      settings: { ...SETTINGS, enabled: false },
    },
  ],
};

it('shows breakers, whose they are, and what is down', async () => {
  await using server = await startTinyGateway((response) => sendJson(response, 200, VIEW));
  await using shell = await openShell();
  const { code, stdout } = await shell.weir(['limits', '--breakers', '--url', server.url]);
  expect(code).toBe(0);
  expect(stdout).toMatch(/llm:a\/x +open +9 +20 +all processes +2026-01-31T10:00:00\.000Z +.* try in 13 s\n/);
  expect(stdout).toMatch(/redis +off +0 +7 +the gateway +–\n/);
  expect(stdout).toContain('degradation minor: llm:a');
  expect(server.asked[0]?.path).toBe('/api/v1/breakers');
});

it('passes on with --json what the gateway says', async () => {
  await using server = await startTinyGateway((response) => sendJson(response, 200, VIEW));
  await using shell = await openShell();
  const { stdout } = await shell.weir(['limits', '--breakers', '--json', '--url', server.url]);
  expect(JSON.parse(stdout)).toEqual(VIEW);
});
