import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Attempt, Charge } from '../../src/stores/ledger.ts';
import { NO_USAGE, type Usage } from '../../src/task/usage.ts';
import { attemptOf, estimateOf } from '../support/holds.ts';
import { openTestStores, type TestStores } from '../support/stores.ts';

const USAGE: Usage = {
  ...NO_USAGE,
  inputTokens: 30,
  cacheReadTokens: 5,
  outputTokens: 7,
  reasoningTokens: 2,
};
const CHARGE: Charge = { usage: USAGE, nanoUsd: 1_000n, source: 'measured' };
const NOTHING: Charge = { usage: NO_USAGE, nanoUsd: 0n, source: 'none' };
const ESTIMATE: Charge = {
  usage: { ...NO_USAGE, inputTokens: 40, outputTokens: 50 },
  nanoUsd: 700n,
  source: 'estimated',
};
const ANSWER = { status: 'completed', text: 'an answer', finishReason: 'stop' } as const;
const TASK = { taskId: 'task', runId: 'run', tenantId: 'acme' };

let test: TestStores;
let calls = 0;

/** An attempt of a call of its own, unless it is told which; each with a moment of its own. */
function newAttempt(
  change: Partial<Attempt> & { readonly call?: string; readonly n?: string } = {},
): Attempt {
  calls += 1;
  const { call = `task:run:answer:${calls}`, n = '0.1.1.0', ...rest } = change;
  const payer = { tenantId: 'acme', userId: 'ada', sessionId: 'talk', taskId: 'task' };
  const held = { attemptKey: `${call}#${n}`, payer, estimate: estimateOf(2_000n), limits: [] };
  return { ...attemptOf(held, Date.now() + calls), ...rest };
}

async function started(change: Parameters<typeof newAttempt>[0] = {}): Promise<Attempt> {
  const attempt = newAttempt(change);
  expect(await test.stores.ledger.intent(attempt, undefined)).toBe(true);
  return attempt;
}

async function rowsOf(attempt: Attempt) {
  const { rows } = await test.postgres.query(
    `select kind, adjust_key as "adjustKey", billable, usage_source as source, cost_nano_usd as nano, input_tokens as input,
       cache_read_tokens as cached, output_tokens as output
     from ledger where attempt_key = $1 order by created_at, kind`,
    [attempt.attemptKey],
  );
  return rows;
}

function eventsOf(id: string) {
  return test.postgres
    .query('select id from events where task_id = $1 and id = $2', ['task', id])
    .then(({ rows }) => rows.length);
}

const caused = (id: string) => ({ task: TASK, events: [{ id, type: 'call_started' } as const] });

beforeAll(async () => {
  test = await openTestStores();
  await test.stores.ledger.gate('acme');
});

afterAll(() => test[Symbol.asyncDispose]());

describe('gate', () => {
  it('is made with generation 1 by whoever asks first, also when many ask at once', async () => {
    const gates = await Promise.all(Array.from({ length: 10 }, () => test.stores.ledger.gate('fresh')));
    expect(gates).toEqual(gates.map(() => ({ mode: 'redis', generation: 1n })));
    expect(await test.stores.ledger.tenants()).toContain('fresh');
  });
});

describe('intent', () => {
  it('writes the attempt as it was held, with the milestones of its start', async () => {
    const attempt = newAttempt({
      estimate: {
        nanoUsd: 9_007_199_254_740_993n,
        tokens: 5_000_000_000,
        inputTokens: 1,
        maxOutputTokens: 2,
      },
    });
    expect(await test.stores.ledger.intent(attempt, caused(`${attempt.attemptKey}:started`))).toBe(true);
    expect(await test.stores.ledger.attempt(attempt.attemptKey, attempt.callKey)).toEqual({
      ...attempt,
      state: 'started',
    });
    expect(await eventsOf(`${attempt.attemptKey}:started`)).toBe(1);
  });

  it('is true again for the repetition of a commit whose answer was lost, and writes nothing twice', async () => {
    const attempt = newAttempt();
    const cause = caused(`${attempt.attemptKey}:started`);
    expect(await Promise.all([1, 2, 3].map(() => test.stores.ledger.intent(attempt, cause)))).toEqual([
      true,
      true,
      true,
    ]);
    expect(await test.stores.ledger.startedOfCall(attempt.callKey)).toHaveLength(1);
    expect(await eventsOf(`${attempt.attemptKey}:started`)).toBe(1);
  });

  it('is false once the attempt is over', async () => {
    const attempt = await started();
    await test.stores.ledger.resolve(attempt, { to: 'voided', outcome: 'lost', charge: NOTHING });
    expect(await test.stores.ledger.intent(attempt, undefined)).toBe(false);
  });

  it.each(['generation = 2', "mode = 'postgres'"])(
    'is refused, milestones and all, after the gate moved (%s)',
    async (change) => {
      const tenantId = `moved-${calls}`;
      await test.stores.ledger.gate(tenantId);
      const attempt = newAttempt({ payer: { tenantId, userId: 'ada' } });
      await test.postgres.query(`update gates set ${change} where tenant_id = $1`, [tenantId]);
      expect(await test.stores.ledger.intent(attempt, caused(`${attempt.attemptKey}:started`))).toBe(false);
      expect(await test.stores.ledger.state(attempt)).toBeUndefined();
      expect(await eventsOf(`${attempt.attemptKey}:started`)).toBe(0);
    },
  );

  it('holds up a gate that wants to move until its commit', async () => {
    const tenantId = 'raced';
    await test.stores.ledger.gate(tenantId);
    const attempts = Array.from({ length: 20 }, () => newAttempt({ payer: { tenantId, userId: 'ada' } }));
    const moved = test.postgres.query(
      'update gates set generation = 2 where tenant_id = $1 returning now()',
      [tenantId],
    );
    const answers = await Promise.all(
      attempts.map((attempt) => test.stores.ledger.intent(attempt, undefined)),
    );
    await moved;
    const states = await Promise.all(attempts.map((attempt) => test.stores.ledger.state(attempt)));
    expect(states).toEqual(answers.map((isIntended) => (isIntended ? 'started' : undefined)));
    expect(
      await test.stores.ledger.intent(newAttempt({ payer: { tenantId, userId: 'ada' } }), undefined),
    ).toBe(false);
  });
});

describe('settle', () => {
  it('charges the attempt, stores the answer and writes the milestones, all at once', async () => {
    const attempt = await started();
    const end = { outcome: 'ok', charge: CHARGE, result: ANSWER } as const;
    expect(await test.stores.ledger.settle(attempt, end, caused(`${attempt.attemptKey}:completed`))).toBe(
      'settled',
    );
    expect(await test.stores.ledger.state(attempt)).toBe('settled');
    expect(await rowsOf(attempt)).toEqual([
      {
        kind: 'charge',
        adjustKey: '',
        billable: true,
        source: 'measured',
        nano: 1_000n,
        input: 30n,
        cached: 5n,
        output: 7n,
      },
    ]);
    expect(await test.stores.ledger.result(attempt.callKey)).toEqual({
      ...ANSWER,
      callKey: attempt.callKey,
      attemptKey: attempt.attemptKey,
      model: attempt.model,
      usage: USAGE,
      nanoUsd: 1_000n,
    });
    expect(await eventsOf(`${attempt.attemptKey}:completed`)).toBe(1);
    expect(await test.stores.ledger.startedOfCall(attempt.callKey)).toEqual([]);
  });

  it('changes nothing when it is repeated, at once or later', async () => {
    const attempt = await started();
    const end = { outcome: 'ok', charge: CHARGE, result: ANSWER } as const;
    const settle = () => test.stores.ledger.settle(attempt, end, undefined);
    expect(await Promise.all([1, 2, 3].map(settle))).toEqual(['settled', 'settled', 'settled']);
    expect(await settle()).toBe('settled');
    expect(await rowsOf(attempt)).toHaveLength(1);
    expect(await test.stores.ledger.charged(attempt)).toEqual({ ...CHARGE, source: 'none' });
  });

  it.each([
    ['estimated', ESTIMATE],
    ['voided', NOTHING],
  ] as const)('is fenced after the attempt was %s, and writes nothing', async (to, charge) => {
    const attempt = await started();
    await test.stores.ledger.resolve(attempt, { to, outcome: 'lost', charge });
    const before = await rowsOf(attempt);
    const end = { outcome: 'ok', charge: CHARGE, result: ANSWER } as const;
    expect(await test.stores.ledger.settle(attempt, end, caused(`${attempt.attemptKey}:completed`))).toBe(
      'fenced',
    );
    expect(await rowsOf(attempt)).toEqual(before);
    expect(await test.stores.ledger.result(attempt.callKey)).toBeUndefined();
    expect(await eventsOf(`${attempt.attemptKey}:completed`)).toBe(0);
  });

  it('is fenced for an attempt that nobody intended', async () => {
    const end = { outcome: 'ok', charge: CHARGE, result: ANSWER } as const;
    expect(await test.stores.ledger.settle(newAttempt(), end, undefined)).toBe('fenced');
  });

  it('bills a call once, whichever of its racing attempts wins', async () => {
    const call = 'task:run:answer:raced';
    const attempts = await Promise.all(
      Array.from({ length: 8 }, (_, n) => started({ call, n: `0.1.${n + 1}.0` })),
    );
    const settled = await Promise.all(
      attempts.map((attempt) =>
        test.stores.ledger.settle(
          attempt,
          { outcome: 'ok', charge: CHARGE, result: { ...ANSWER, text: attempt.attemptKey } },
          undefined,
        ),
      ),
    );
    expect(settled).toEqual(attempts.map(() => 'settled'));
    const rows = (await Promise.all(attempts.map(rowsOf))).flat();
    expect(rows).toHaveLength(8);
    expect(rows.filter((row) => row['billable'] === true)).toHaveLength(1);
    const result = await test.stores.ledger.result(call);
    const winner = attempts.find((attempt) => attempt.attemptKey === result?.attemptKey);
    expect(result?.text).toBe(winner?.attemptKey);
    expect((await rowsOf(winner ?? newAttempt()))[0]).toMatchObject({ billable: true });
  });

  it('does not bill an attempt that brought no answer', async () => {
    const attempt = await started();
    await test.stores.ledger.settle(attempt, { outcome: 'failed', charge: CHARGE }, undefined);
    expect(await rowsOf(attempt)).toMatchObject([{ kind: 'charge', billable: false, nano: 1_000n }]);
    expect(await test.stores.ledger.result(attempt.callKey)).toBeUndefined();
  });

  it('keeps a measured zero as zero', async () => {
    const attempt = await started();
    await test.stores.ledger.settle(
      attempt,
      { outcome: 'ok', charge: { usage: NO_USAGE, nanoUsd: 0n, source: 'measured' }, result: ANSWER },
      undefined,
    );
    expect(await rowsOf(attempt)).toMatchObject([
      { kind: 'charge', source: 'measured', nano: 0n, input: 0n, output: 0n },
    ]);
    expect((await test.stores.ledger.result(attempt.callKey))?.usage).toEqual(NO_USAGE);
  });

  it('takes an answer that no text column takes: NUL, lone surrogates, a megabyte', async () => {
    const attempt = await started();
    const text = `a\u0000b\ud800c${'x'.repeat(1_000_000)}`;
    expect(
      await test.stores.ledger.settle(
        attempt,
        { outcome: 'ok', charge: CHARGE, result: { ...ANSWER, text } },
        undefined,
      ),
    ).toBe('settled');
    expect((await test.stores.ledger.result(attempt.callKey))?.text).toBe(`ab�c${'x'.repeat(1_000_000)}`);
  });
});

describe('resolve', () => {
  it('leaves one of several that resolve at once the winner', async () => {
    const attempt = await started();
    const answers = await Promise.all([
      ...Array.from({ length: 5 }, () =>
        test.stores.ledger.resolve(attempt, { to: 'voided', outcome: 'lost', charge: NOTHING }),
      ),
      ...Array.from({ length: 5 }, () =>
        test.stores.ledger.resolve(attempt, { to: 'estimated', outcome: 'lost', charge: ESTIMATE }),
      ),
      test.stores.ledger
        .settle(attempt, { outcome: 'ok', charge: CHARGE, result: ANSWER }, undefined)
        .then((end) => end === 'settled'),
    ]);
    expect(answers.filter(Boolean)).toHaveLength(1);
    expect(await rowsOf(attempt)).toHaveLength(1);
  });

  it.each([
    ['voided', 'void', NOTHING],
    ['estimated', 'estimate', ESTIMATE],
  ] as const)(
    'writes an attempt that was %s as %s, with its milestones, unbilled',
    async (to, kind, charge) => {
      const attempt = await started();
      const cause = caused(`${attempt.attemptKey}:reset`);
      expect(await test.stores.ledger.resolve(attempt, { to, outcome: 'lost', charge, caused: cause })).toBe(
        true,
      );
      expect(await rowsOf(attempt)).toMatchObject([
        { kind, nano: charge.nanoUsd, source: charge.source, billable: false },
      ]);
      expect(await eventsOf(`${attempt.attemptKey}:reset`)).toBe(1);
      expect(await test.stores.ledger.state(attempt)).toBe(to);
    },
  );
});

describe('adjustLate', () => {
  it('books the difference between estimate and truth, once, and makes the sum exact', async () => {
    const attempt = await started();
    await test.stores.ledger.resolve(attempt, { to: 'estimated', outcome: 'lost', charge: ESTIMATE });
    const difference = {
      source: 'measured',
      nanoUsd: 300n,
      usage: { ...NO_USAGE, inputTokens: -10, cacheReadTokens: 5, outputTokens: -43, reasoningTokens: 2 },
    };
    const answers = await Promise.all([1, 2, 3].map(() => test.stores.ledger.adjustLate(attempt, CHARGE)));
    expect(answers.filter((answer) => answer !== undefined)).toEqual([difference]);
    expect(await test.stores.ledger.adjustLate(attempt, CHARGE)).toBeUndefined();
    expect(await test.stores.ledger.charged(attempt)).toEqual({ ...CHARGE, source: 'none' });
    expect(await rowsOf(attempt)).toMatchObject([
      { kind: 'estimate' },
      { kind: 'adjust', adjustKey: 'late', billable: false, nano: 300n },
    ]);
  });

  it('books the whole of an attempt that had been voided', async () => {
    const attempt = await started();
    await test.stores.ledger.resolve(attempt, { to: 'voided', outcome: 'lost', charge: NOTHING });
    expect(await test.stores.ledger.adjustLate(attempt, CHARGE)).toEqual(CHARGE);
    expect((await test.stores.ledger.charged(attempt)).nanoUsd).toBe(1_000n);
  });

  it('takes back what an estimate had too much', async () => {
    const attempt = await started();
    await test.stores.ledger.resolve(attempt, {
      to: 'estimated',
      outcome: 'lost',
      charge: { ...ESTIMATE, nanoUsd: 5_000n },
    });
    expect((await test.stores.ledger.adjustLate(attempt, CHARGE))?.nanoUsd).toBe(-4_000n);
    expect((await test.stores.ledger.charged(attempt)).nanoUsd).toBe(1_000n);
  });
});

describe('failures', () => {
  it('counts per candidate what failed at the provider and what it throttled, nothing else', async () => {
    const call = 'task:run:answer:failures';
    const end = async (
      n: string,
      candidate: number,
      outcome: 'ok' | 'failed' | 'throttled' | 'cancelled' | 'lost',
    ) => {
      const attempt = await started({ call, n, candidate });
      await test.stores.ledger.settle(attempt, { outcome, charge: NOTHING }, undefined);
    };
    expect(await test.stores.ledger.failures(call)).toEqual([]);
    await end('0.1.1.0', 0, 'failed');
    await end('0.1.2.0', 0, 'failed');
    await end('0.2.1.0', 0, 'throttled');
    await end('0.3.1.0', 0, 'lost');
    await end('1.4.1.0', 1, 'cancelled');
    await started({ call, n: '1.4.2.0', candidate: 1 });
    const lost = await started({ call, n: '1.4.3.0', candidate: 1 });
    await test.stores.ledger.resolve(lost, { to: 'estimated', outcome: 'failed', charge: ESTIMATE });
    const counts = await test.stores.ledger.failures(call);
    expect([...counts].sort((left, right) => left.candidate - right.candidate)).toEqual([
      { candidate: 0, failed: 2, throttled: 1 },
      { candidate: 1, failed: 1, throttled: 0 },
    ]);
  });
});

describe('medianOutputTokens', () => {
  it('is nothing before the first answer and the middle of the last two hundred after', async () => {
    const model = 'simulated/median';
    expect(await test.stores.ledger.medianOutputTokens(model)).toBeUndefined();
    const answer = async (outputTokens: number) => {
      const attempt = await started({ model });
      const charge = { ...CHARGE, usage: { ...NO_USAGE, outputTokens } };
      await test.stores.ledger.settle(attempt, { outcome: 'ok', charge, result: ANSWER }, undefined);
    };
    for (const tokens of [10, 1_000, 30]) await answer(tokens);
    expect(await test.stores.ledger.medianOutputTokens(model)).toBe(30);
    await test.postgres.query(
      `insert into call_results (call_key, tenant_id, attempt_key, status, model, text, finish_reason, usage, cost_nano_usd)
       select 'median:' || n, 'acme', 'a', 'completed', $1, '', 'stop', '{"outputTokens": 7}', 0 from generate_series(1, 200) as n`,
      [model],
    );
    expect(await test.stores.ledger.medianOutputTokens(model)).toBe(7);
  });

  it('leaves out answers that a user cut short', async () => {
    const model = 'simulated/cut';
    const attempt = await started({ model });
    const charge = { ...CHARGE, usage: { ...NO_USAGE, outputTokens: 1 } };
    await test.stores.ledger.settle(
      attempt,
      { outcome: 'cancelled', charge, result: { ...ANSWER, status: 'cancelled' } },
      undefined,
    );
    expect(await test.stores.ledger.medianOutputTokens(model)).toBeUndefined();
  });
});

describe('open attempts', () => {
  it('are listed oldest first, of a call and of a tenant, and counted', async () => {
    const tenantId = 'open';
    await test.stores.ledger.gate(tenantId);
    const payer = { tenantId, userId: 'ada' };
    const before = await test.stores.ledger.openHolds();
    const now = Date.now();
    const newer = await started({
      payer,
      call: 'open:run:answer:1',
      n: '0.1.2.0',
      heldAt: new Date(now - 1_000),
    });
    const older = await started({
      payer,
      call: 'open:run:answer:1',
      n: '0.1.1.0',
      heldAt: new Date(now - 60_000),
    });
    const other = await started({ payer, call: 'open:run:answer:2', heldAt: new Date(now) });
    expect(await test.stores.ledger.startedOfCall('open:run:answer:1')).toEqual([older, newer]);
    expect(await test.stores.ledger.startedOfTenant(tenantId)).toEqual([older, newer, other]);
    const after = await test.stores.ledger.openHolds();
    expect(after.count - before.count).toBe(3);
    expect(after.oldestSeconds).toBeGreaterThanOrEqual(60);
    await test.stores.ledger.settle(other, { outcome: 'ok', charge: CHARGE, result: ANSWER }, undefined);
    expect(await test.stores.ledger.startedOfTenant(tenantId)).toEqual([older, newer]);
  });
});

describe('partitions', () => {
  it('exist from last month to three months ahead, and are made once when many make them', async () => {
    await Promise.all(Array.from({ length: 5 }, () => test.stores.ledger.ensurePartitions()));
    const { rows } = await test.postgres.query<{ name: string }>(
      `select c.relname as name from pg_inherits i join pg_class c on c.oid = i.inhrelid join pg_class p on p.oid = i.inhparent
       where p.relnamespace = $1::regnamespace order by 1`,
      [test.schema],
    );
    const months = Array.from({ length: 5 }, (_, ahead) => {
      const now = new Date();
      return new Date(Date.UTC(now.getUTCFullYear(), now.getUTCMonth() + ahead - 1, 1))
        .toISOString()
        .slice(0, 7)
        .replace('-', '_');
    });
    const names = rows.map((row) => row.name).filter((name) => /^(attempts|ledger)_\d{4}_\d\d$/.test(name));
    expect(names).toEqual(
      ['attempts', 'ledger'].flatMap((parent) => months.map((month) => `${parent}_${month}`)),
    );
  });

  it('take an attempt of the last millisecond of a month and the first of the next', async () => {
    const now = new Date();
    const next = Date.UTC(now.getUTCFullYear(), now.getUTCMonth() + 1, 1);
    for (const at of [next - 1, next]) {
      const attempt = await started({ heldAt: new Date(at) });
      await test.stores.ledger.settle(attempt, { outcome: 'ok', charge: CHARGE, result: ANSWER }, undefined);
      expect((await test.stores.ledger.charged(attempt)).nanoUsd).toBe(1_000n);
    }
  });
});
