// `weir usage` and `weir erase` as processes, against a stand-in of the gateway.

import { describe, expect, it } from 'vitest';
import { sendJson, startTinyGateway } from '../client/tiny-gateway.ts';
import { openShell } from './run-weir.ts';

const USAGE = {
  inputTokens: 120,
  cachedInputTokens: 0,
  cacheWriteTokens: 0,
  outputTokens: '18014398509481983',
  reasoningTokens: 0,
};

const sums = (costUsd: string) => ({ calls: 1, attempts: 2, usage: USAGE, costUsd, billableUsd: '0.10' });

describe('weir usage', () => {
  it('shows a table with bars, exact amounts and what was left out', async () => {
    await using server = await startTinyGateway((response) =>
      sendJson(response, 200, {
        groups: [
          { user: 'ada', model: 'a,"b"', ...sums('9007199.254740993') },
          { user: 'bob', model: null, ...sums('4503599.627370497') },
          { user: 'eve', model: 'x', ...sums('0.0000001') },
          { user: 'zoe', model: 'back', ...sums('-0.50') },
        ],
        total: sums('13510798.3821115'),
        truncated: true,
      }),
    );
    await using shell = await openShell();
    const shown = await shell.weir([
      ...['usage', '--group', 'user, model', '--tenant', 'acme', '--from', '2026-01-01'],
      ...['--day', '2026-01-31', '--limit', '4', '--url', server.url],
    ]);
    expect(shown.code).toBe(0);
    expect(shown.stdout).toMatch(/^user +model +calls +attempts +tokens in +out +USD +billed\n/);
    expect(shown.stdout).toMatch(
      /ada +a,"b" +1 +2 +120 +18014398509481983 +9007199\.254740993 +0\.10 +█{24}\n/,
    );
    expect(shown.stdout).toMatch(/bob +– .* █{12}\n/);
    expect(shown.stdout).toMatch(/eve .* ▏\n/);
    expect(shown.stdout).toMatch(/zoe .* -0\.50 +0\.10\n/);
    expect(shown.stdout).toMatch(/total .* 13510798\.3821115 +0\.10\n.*more groups than these/);
    expect(server.asked[0]?.path).toBe(
      '/api/v1/usage?group=user%2Cmodel&tenant=acme&day=2026-01-31&from=2026-01-01&limit=4',
    );
  });

  it('passes CSV on as the gateway made it, and tells on standard error that groups are missing', async () => {
    const csv = 'user,calls\r\n"a,b",1\r\n';
    await using server = await startTinyGateway((response) => {
      response.writeHead(200, { 'content-type': 'text/csv', 'weir-truncated': 'true' });
      response.end(csv);
    });
    await using shell = await openShell();
    const { stdout, stderr } = await shell.weir(['usage', '--group', 'user', '--csv', '--url', server.url]);
    expect(stdout).toBe(csv);
    expect(stderr).toContain('more groups than these');
    expect(server.asked[0]?.path).toBe('/api/v1/usage?group=user&format=csv');
  });

  it('re-rates a period part by part and sums up what was booked', async () => {
    const part = (differenceUsd: string, unknown: number) => ({
      priceHash: 'abc',
      attempts: 5_000,
      adjusted: 2,
      differenceUsd,
      models: [{ model: 'p/a', adjusted: 2, differenceUsd }],
      unknownPrices: unknown === 0 ? [] : [{ model: 'p/x', attempts: unknown }],
      appliedBefore: 1,
    });
    await using server = await startTinyGateway((response, _asked, count) =>
      sendJson(response, 200, count === 0 ? { ...part('-0.75', 3), next: 'place' } : part('0.25', 4)),
    );
    await using shell = await openShell();
    const args = ['usage', '--rerate', '--from', '2026-01-01', '--to', '2026-02-01', '--url', server.url];
    const { code, stdout, stderr } = await shell.weir([...args, '--model', 'p/a', '--dry-run']);
    expect(code).toBe(0);
    expect(stdout).toMatch(
      /p\/a +4 +-0\.50\ntotal +4 +-0\.50\n4 of 10000 attempts would be adjusted .* abc\n/,
    );
    expect(stderr).toContain('7 attempts of p/x stay as they are');
    expect(stderr).toContain('2 attempts stay as they are: this list was applied before');
    const period = { from: '2026-01-01', to: '2026-02-01', model: 'p/a', dryRun: true };
    expect(server.asked.map(({ body }) => JSON.parse(body))).toEqual([period, { ...period, after: 'place' }]);
  });

  it.each([
    [['--rerate'], '--rerate needs --from and --to'],
    [['--rerate', '--from', '2026-01-01', '--to', '2026-02-01', '--user', 'ada'], 'not --user'],
    [['--dry-run'], '--dry-run belongs to --rerate'],
    [['--limit', '0'], 'whole number'],
  ])('refuses %j', async (args, message) => {
    await using shell = await openShell();
    const { code, stderr } = await shell.weir(['usage', ...args, '--url', 'http://127.0.0.1:9']);
    expect(code).toBe(1);
    expect(stderr).toContain(message);
  });
});

describe('weir erase', () => {
  it('erases only when it is told to, and says what is left', async () => {
    const erased = { tasks: 3, events: 7, calls: 1, running: 0 };
    await using server = await startTinyGateway((response, _asked, count) =>
      sendJson(response, 200, count === 0 ? erased : { ...erased, running: 2 }),
    );
    await using shell = await openShell();
    const args = ['erase', '--user', 'ada', '--url', server.url];
    const asked = await shell.weir(args);
    expect(asked.code).toBe(1);
    expect(asked.stderr).toContain('the texts of user ada of tenant default for good: say --yes');
    expect(server.asked).toEqual([]);
    const done = await shell.weir([...args, '--yes']);
    expect(done.code).toBe(0);
    expect(done.stdout).toContain('erased the texts of 3 tasks, 7 events and 1 direct calls of user ada');
    const left = await shell.weir([...args, '--tenant', 'acme', '--yes']);
    expect(left.code).toBe(1);
    expect(left.stdout).toContain('2 tasks are still under way');
    expect(server.asked.map(({ method, path }) => `${method} ${path}`)).toEqual([
      'DELETE /api/v1/texts?tenantId=default&userId=ada',
      'DELETE /api/v1/texts?tenantId=acme&userId=ada',
    ]);
  });

  it('never takes nobody for everybody', async () => {
    await using shell = await openShell();
    const { code, stderr } = await shell.weir(['erase', '--yes', '--url', 'http://127.0.0.1:9']);
    expect(code).toBe(1);
    expect(stderr).toContain('name whose texts to erase');
  });
});
