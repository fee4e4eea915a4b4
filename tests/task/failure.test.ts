import { describe, expect, it } from 'vitest';
import { FAILURE_TYPES, type FailureDetails, failureMessage } from '../../src/task/failure.ts';

const BUDGET: FailureDetails = {
  type: 'BudgetExceeded',
  scope: 'user',
  id: 'ada',
  unit: 'usd',
  window: 'total',
  limit: '5.00',
  settled: '4.90',
  held: '0.05',
  needed: '0.10',
};

const ROWS: [FailureDetails, string][] = [
  [
    {
      type: 'InvalidTask',
      faults: [
        { path: 'budget.usd', expected: 'an amount', got: '-1' },
        { path: 'userId', expected: 'an id', got: 'nothing' },
      ],
    },
    'invalid task: budget.usd: expected an amount, got -1; userId: expected an id, got nothing',
  ],
  [BUDGET, 'budget exceeded: user ada has a limit of 5.00 usd (total), settled 4.90, held 0.05, needed 0.10'],
  [
    { type: 'RateLimited', reason: 'the wait would end after the deadline', model: 'a/b', retryAfterMs: 9 },
    'rate limited: the wait would end after the deadline (a/b)',
  ],
  [{ type: 'RequestRejected', reason: 'wrong' }, 'the provider rejected the request: wrong'],
  [{ type: 'NoModelAvailable', reason: 'auth', model: 'a/b' }, 'no model available: auth (a/b)'],
  [{ type: 'DeadlineExceeded', reason: 'no time was left' }, 'deadline exceeded: no time was left'],
  [{ type: 'ContentRefused', reason: 'filtered' }, 'content refused: filtered'],
];

describe('failureMessage', () => {
  it.each(ROWS)('tells a person what $type means', (details, message) => {
    expect(failureMessage(details)).toBe(message);
  });

  it('has a sentence for every type whose part exists', () => {
    const later = ['ApprovalRejected', 'ApprovalTimedOut'];
    expect(ROWS.map(([details]) => details.type).sort()).toEqual(
      FAILURE_TYPES.filter((type) => !later.includes(type)).sort(),
    );
  });
});
