import { describe, expect, it } from 'vitest';
import { parseDecision, parseRaise } from '../../src/task/approval.ts';
import type { BudgetExceededDetails } from '../../src/task/failure.ts';

const USD: BudgetExceededDetails = {
  type: 'BudgetExceeded',
  scope: 'user',
  id: 'ada',
  unit: 'usd',
  window: 'day',
  limit: '5.00',
  settled: '5.00',
  held: '0.00',
  needed: '0.10',
};
const APPROVED = { approvalId: 'run.answer.1.1', decision: 'approve', by: 'ada' };

describe('a decision', () => {
  it.each([
    ['alone', {}],
    ['with a raise and a comment', { raiseUsd: '0.25', comment: 'fine' }],
  ])('is taken %s', (_, more) => {
    expect(parseDecision({ ...APPROVED, ...more }, USD)).toEqual({
      kind: 'valid',
      value: { ...APPROVED, ...more },
    });
  });

  it('has its amount as canonical text, also where a number was given', () => {
    expect(parseDecision({ ...APPROVED, raiseUsd: 0.1 }, USD)).toMatchObject({ value: { raiseUsd: '0.10' } });
  });

  it.each([
    ['a negative raise', { raiseUsd: '-1' }, 'raiseUsd', 'an amount in USD above 0'],
    ['a raise of nothing', { raiseUsd: 0 }, 'raiseUsd', 'an amount in USD above 0'],
    ['a raise in words', { raiseUsd: 'much' }, 'raiseUsd', 'an amount in USD above 0'],
    ['a raise that is no number', { raiseUsd: Number.NaN }, 'raiseUsd', 'an amount in USD above 0'],
    ['a raise beyond what can be counted', { raiseUsd: '9000000.01' }, 'raiseUsd', 'at most 9000000'],
    ['a raise of what it rejects', { decision: 'reject', raiseUsd: 1 }, 'raiseUsd', 'raises no limit'],
    ['another word', { decision: 'maybe' }, 'decision', 'one of approve, reject'],
    ['no id', { approvalId: '' }, 'approvalId', 'the id of an approval'],
    ['nobody', { by: ' ' }, 'by', 'who decides'],
    ['a NUL in a name', { by: 'a\u0000' }, 'by', 'who decides'],
    ['a long comment', { comment: 'x'.repeat(501) }, 'comment', 'at most 500 characters'],
    ['a field that nobody knows', { usd: 1 }, 'usd', 'no such field'],
  ])('is refused with %s', (_, more, path, expected) => {
    const parsed = parseDecision({ ...APPROVED, ...more }, USD);
    expect(parsed).toMatchObject({
      kind: 'invalid',
      faults: [{ path, expected: expect.stringContaining(expected) }],
    });
  });

  it.each([undefined, null, 'approve', [APPROVED]])('is an object, not %j', (value) => {
    expect(parseDecision(value)).toMatchObject({ kind: 'invalid', faults: [{ path: '' }] });
  });

  it('cannot raise a limit in tokens', () => {
    const tokens = { ...USD, unit: 'tokens' } as const;
    expect(parseDecision({ ...APPROVED, raiseUsd: 1 }, tokens)).toMatchObject({
      faults: [{ path: 'raiseUsd', expected: 'nothing: the limit counts tokens, USD cannot raise it' }],
    });
    expect(parseDecision(APPROVED, tokens).kind).toBe('valid');
  });
});

describe('a raise', () => {
  it('is in USD, in tokens, or in both', () => {
    expect(parseRaise({ usd: 1, by: 'ada' })).toEqual({ kind: 'valid', value: { usd: '1.00', by: 'ada' } });
    expect(parseRaise({ usd: '1', tokens: 5, by: 'ada' })).toMatchObject({ value: { tokens: 5 } });
  });

  it.each([
    ['no amount', { by: 'ada' }, 'usd', 'at least one of usd and tokens'],
    ['a negative amount', { usd: '-1', by: 'ada' }, 'usd', 'an amount in USD above 0'],
    ['nothing', { usd: 0, by: 'ada' }, 'usd', 'an amount in USD above 0'],
    ['half a token', { tokens: 0.5, by: 'ada' }, 'tokens', 'a whole number from 1'],
    ['tokens as a text', { tokens: '5', by: 'ada' }, 'tokens', 'a whole number from 1'],
    ['nobody', { usd: 1 }, 'by', 'who raises it'],
    ['a field that nobody knows', { usd: 1, by: 'ada', eur: 1 }, 'eur', 'no such field'],
  ])('is refused with %s', (_, raise, path, expected) => {
    expect(parseRaise(raise)).toMatchObject({
      kind: 'invalid',
      faults: [{ path, expected: expect.stringContaining(expected) }],
    });
  });
});
