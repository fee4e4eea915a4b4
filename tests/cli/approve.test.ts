// `weir approve` and `weir raise` as processes, against a stand-in of the gateway.

import { expect, it } from 'vitest';
import { sendJson, sendProblem, startTinyGateway } from '../client/tiny-gateway.ts';
import { openShell } from './run-weir.ts';

const EXCEEDED = {
  ...{ type: 'BudgetExceeded', scope: 'user', id: 'ada', unit: 'usd', window: 'day' },
  ...{ limit: '1.00', settled: '0.95', held: '0.00', needed: '0.10' },
};
const APPROVAL = {
  ...{ approvalId: 'run.answer.1.1', taskId: 'task-1', tenantId: 'default', userId: 'ada' },
  ...{ status: 'pending', exceeded: EXCEEDED, onTimeout: 'reject' },
  ...{ requestedAt: '2026-01-02T03:04:05.678Z', expiresAt: '2026-01-03T03:04:05.678Z' },
};

it('lists what waits for an approval', async () => {
  await using gateway = await startTinyGateway((response) =>
    sendJson(response, 200, { approvals: [APPROVAL] }),
  );
  await using shell = await openShell();
  const { code, stdout } = await shell.weir(['approve', '--url', gateway.url]);
  expect(code).toBe(0);
  expect(stdout).toContain('run.answer.1.1  task-1  ada');
  expect(stdout).toContain('user ada, usd (day)');
  expect(stdout).toContain('2026-01-03 03:04:05');
});

it('says that nothing waits', async () => {
  await using gateway = await startTinyGateway((response) => sendJson(response, 200, { approvals: [] }));
  await using shell = await openShell();
  expect((await shell.weir(['approve', '--url', gateway.url])).stdout).toContain('nothing waits');
});

it('approves with a raise, and rejects with a comment', async () => {
  await using gateway = await startTinyGateway((response, { body }) => {
    const { decision, raiseUsd } = JSON.parse(body);
    const status = decision === 'approve' ? 'approved' : 'rejected';
    sendJson(response, 200, { ...APPROVAL, status, ...(raiseUsd === undefined ? {} : { raiseUsd }) });
  });
  await using shell = await openShell();
  const url = ['--url', gateway.url];
  const approved = await shell.weir([
    ...['approve', 'run.answer.1.1', '--raise-usd', '0.50', '--by', 'grace'],
    ...url,
  ]);
  expect(approved.stdout).toBe('task-1 is approved, and the limit of user ada is raised by $0.50 for it\n');
  const rejected = await shell.weir([
    ...['approve', 'run.answer.1.1', '--reject', '--comment', 'too dear', '--by', 'grace'],
    ...url,
  ]);
  expect(rejected.stdout).toBe('task-1 is rejected\n');
  expect(gateway.asked.map(({ method, path, body }) => [method, path, JSON.parse(body)])).toEqual([
    ['POST', '/api/v1/approvals/run.answer.1.1', { decision: 'approve', raiseUsd: '0.50', by: 'grace' }],
    ['POST', '/api/v1/approvals/run.answer.1.1', { decision: 'reject', comment: 'too dear', by: 'grace' }],
  ]);
});

it('tells why a decision was refused', async () => {
  await using gateway = await startTinyGateway((response) =>
    sendProblem(response, 409, { type: 'AlreadyDecided', detail: 'approval x is rejected' }),
  );
  await using shell = await openShell();
  const { code, stderr } = await shell.weir(['approve', 'x', '--url', gateway.url]);
  expect(code).toBe(1);
  expect(stderr).toContain('approval x is rejected');
});

it('raises the budget of a task', async () => {
  await using gateway = await startTinyGateway((response) =>
    sendJson(response, 200, {
      taskId: 'task-1',
      limits: [{ unit: 'usd', window: 'total', amount: '1.50' }],
    }),
  );
  await using shell = await openShell();
  const { code, stdout } = await shell.weir([
    ...['raise', 'task-1', '--usd', '0.50', '--tokens', '100', '--by', 'grace'],
    ...['--url', gateway.url],
  ]);
  expect(code).toBe(0);
  expect(stdout).toBe('task-1 may now spend 1.50 usd (total)\n');
  expect(gateway.asked.map(({ path, body }) => [path, JSON.parse(body)])).toEqual([
    ['/api/v1/tasks/task-1/budget', { usd: '0.50', tokens: 100, by: 'grace' }],
  ]);
});

it.each([
  [['approve', '--reject'], 'give the id of an approval'],
  [['approve', 'x', '--raise-usd', 'much'], '--raise-usd is an amount such as 5.00, got "much"'],
  [['approve', 'x', '--reject', '--raise-usd', '1'], 'give one of --reject and --raise-usd'],
  [['raise', 'task-1'], 'give --usd, --tokens or both'],
  [['raise', 'task-1', '--usd', '-1', '--tokens', '0'], '--tokens is a whole number of at least 1, got "0"'],
])('refuses %j with one clear message', async (args, message) => {
  await using shell = await openShell();
  const { code, stderr } = await shell.weir([...args, '--url', 'http://127.0.0.1:9']);
  expect(code).toBe(1);
  expect(stderr).toContain(message);
  expect(stderr).not.toContain('    at ');
});
