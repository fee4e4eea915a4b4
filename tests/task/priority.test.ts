import { describe, expect, it } from 'vitest';
import { PRIORITIES } from '../../src/task/input.ts';
import {
  PRIORITY_KEYS,
  priorityOfKey,
  toFairnessKey,
  toQueue,
  toQueuePriority,
} from '../../src/task/priority.ts';

describe('the place of a task in its queue', () => {
  it('is told by keys from 1 to 4, the most important first', () => {
    expect(PRIORITIES.map((priority) => toQueuePriority(priority, 'acme', 1).priorityKey)).toEqual([
      1, 2, 3, 4,
    ]);
    expect(toQueuePriority('high', 'acme', 2.5)).toEqual({
      priorityKey: 2,
      fairnessKey: 'acme',
      fairnessWeight: 2.5,
    });
  });

  it('is read back from its key, from keys of others too', () => {
    for (const priority of PRIORITIES) expect(priorityOfKey(PRIORITY_KEYS[priority])).toBe(priority);
    expect([0, 5, 99].map(priorityOfKey)).toEqual(['critical', 'low', 'low']);
  });
});

describe('the key of a tenant', () => {
  it('is its id up to 64 bytes', () => {
    expect(toFairnessKey('a'.repeat(64))).toBe('a'.repeat(64));
  });

  it('is a beginning and a hash of longer ids, told apart by their last character', () => {
    const long = 'tenant.'.repeat(18);
    const [one, other] = [toFairnessKey(`${long}1`), toFairnessKey(`${long}2`)];
    expect(one).toHaveLength(64);
    expect(one.startsWith(long.slice(0, 47))).toBe(true);
    expect(one).not.toBe(other);
    expect(toFairnessKey(`${long}1`)).toBe(one);
  });

  it('of a long id is no id that a tenant may have', () => {
    expect(toFairnessKey('a'.repeat(65))).not.toMatch(/^[A-Za-z0-9._:@-]+$/);
  });
});

describe('the queue of a task', () => {
  it('is that of its priority, and normal for all when the queues are off', () => {
    expect(PRIORITIES.map((priority) => toQueue('weir', priority, true))).toEqual([
      'weir-critical',
      'weir-high',
      'weir-normal',
      'weir-low',
    ]);
    expect(new Set(PRIORITIES.map((priority) => toQueue('weir', priority, false)))).toEqual(
      new Set(['weir-normal']),
    );
  });
});
