import { describe, expect, it } from 'vitest';
import { budgetKeys, eventKeys, rateKeys, tenantRateKeys } from '../../src/stores/keys.ts';

/** What Redis Cluster hashes: the text between the first brace and the next one that closes. */
function slotOf(key: string): string {
  const match = /\{([^}]+)\}/.exec(key);
  if (match?.[1] === undefined) throw new Error(`no hash tag in ${key}`);
  return match[1];
}

describe('budgetKeys', () => {
  it('puts everything of a tenant into one slot under the prefix', () => {
    const keys = budgetKeys('weir', 'acme');
    const all = [
      keys.holds,
      keys.leases,
      keys.done('t:r:answer:1#0.1.1.0'),
      keys.scope('tenant', 'acme'),
      keys.scope('user', 'ada'),
      keys.scope('task', 't'),
    ];
    expect(new Set(all).size).toBe(all.length);
    for (const key of all) {
      expect(slotOf(key)).toBe('t:acme');
      expect(key.startsWith('weir:{')).toBe(true);
    }
  });

  it('keeps scopes of one id apart by their kind', () => {
    const { scope } = budgetKeys('weir', 'acme');
    expect(
      new Set((['tenant', 'user', 'session', 'task'] as const).map((kind) => scope(kind, 'x'))).size,
    ).toBe(4);
  });

  it.each(['', 'a b', 'a}', '{b}', 'x'.repeat(129)])(
    'refuses a tenant %j, whose brace or length would move the slot',
    (id) => {
      expect(() => budgetKeys('weir', id)).toThrow('not an id');
    },
  );
});

describe('rateKeys', () => {
  it('puts a provider into one slot of its own', () => {
    const keys = Object.values(rateKeys('weir', 'openai', 'openai/gpt-5'));
    expect(new Set(keys.map(slotOf))).toEqual(new Set(['p:openai']));
    expect(new Set(keys).size).toBe(5);
  });
});

describe('tenantRateKeys', () => {
  it('puts plan and tiers of a tenant into the slot of its budgets', () => {
    const keys = Object.values(tenantRateKeys('weir', 'acme', 'small'));
    expect(new Set(keys.map(slotOf))).toEqual(new Set(['t:acme']));
    expect(new Set(keys).size).toBe(5);
    expect(() => tenantRateKeys('weir', 'a}b', 'small')).toThrow('not an id');
  });
});

describe('eventKeys', () => {
  it('puts everything of a task into one slot, also the texts of its calls', () => {
    const keys = eventKeys('weir', 'task-1');
    expect(new Set([keys.ring, keys.meta, keys.text('task-1:r:answer:1')].map(slotOf)).size).toBe(1);
  });

  it('spreads tasks over the sixteen shards, the same one each time', () => {
    const shards = Array.from({ length: 2_000 }, (_, n) => slotOf(eventKeys('weir', `task-${n}`).ring));
    expect(shards).toEqual(
      Array.from({ length: 2_000 }, (_, n) => slotOf(eventKeys('weir', `task-${n}`).ring)),
    );
    const counts = Map.groupBy(shards, (shard) => shard);
    expect(counts.size).toBe(16);
    for (const tasks of counts.values()) expect(tasks.length).toBeGreaterThan(60);
  });

  it('refuses what is not an id', () => {
    expect(() => eventKeys('weir', 'a}b')).toThrow('not an id');
  });
});
