import { describe, expect, it } from 'vitest';
import {
  type AttemptNumber,
  attemptOrder,
  toAttemptKey,
  toCallKey,
  toCallKeyOfAttempt,
} from '../../src/task/keys.ts';

const orderOf = (number: AttemptNumber) => attemptOrder(toAttemptKey('a#1:b', number)) ?? Number.NaN;
const FIRST = { candidate: 0, visit: 1, attempt: 1, try: 0 };

describe('keys of calls and attempts', () => {
  it('names a call after its task, run, step and number', () => {
    expect(toCallKey({ taskId: 't', runId: 'r', stepId: 'answer', n: 2 })).toBe('t:r:answer:2');
  });

  it('finds the call of an attempt, also where ids hold colons', () => {
    const callKey = toCallKey({ taskId: 'team:a:task@1', runId: 'r', stepId: 'answer', n: 1 });
    const attemptKey = toAttemptKey(callKey, { candidate: 1, visit: 2, attempt: 3, try: 4 });
    expect(attemptKey).toBe('team:a:task@1:r:answer:1#1.2.3.4');
    expect(toCallKeyOfAttempt(attemptKey)).toBe(callKey);
  });
});

describe('attemptOrder', () => {
  it('rises with every restart, retry and visit, whichever candidate comes', () => {
    const later = [
      FIRST,
      { ...FIRST, try: 1 },
      { ...FIRST, try: 9_999 },
      { ...FIRST, attempt: 2 },
      { ...FIRST, attempt: 2, try: 3 },
      { ...FIRST, attempt: 9_999, try: 9_999 },
      { ...FIRST, candidate: 1, visit: 2 },
      { ...FIRST, candidate: 0, visit: 3 },
    ].map(orderOf);
    expect(later).toEqual([...later].sort((left, right) => left - right));
    expect(new Set(later).size).toBe(later.length);
  });

  it('stays a whole number that a double counts exactly', () => {
    const last = orderOf({ candidate: 9, visit: 9_000_000, attempt: 1e9, try: 1e9 });
    expect(Number.isSafeInteger(last)).toBe(true);
    expect(last + 0.5).not.toBe(last);
    expect(last).toBeLessThan(orderOf({ ...FIRST, visit: 9_000_001 }));
  });

  it('is of attempts alone', () => {
    expect(['', 'call', 'call#1', 'call#1.2.3', 'call#1.2.3.x'].map(attemptOrder)).toEqual(
      Array.from({ length: 5 }, () => undefined),
    );
  });
});
