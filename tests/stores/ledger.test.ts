import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { NO_USAGE } from '../../src/task/usage.ts';
import { openTestStores, type TestStores } from '../support/stores.ts';
import { ANSWER, CHARGE, ESTIMATE, ledgerStage, NOTHING, USAGE } from './ledger-stage.ts';

let test: TestStores;
const { newAttempt, started, besides, rowsOf, eventsOf, caused } = ledgerStage(() => test);

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

  it('is refused, milestones and all, once the call was answered', async () => {
    const call = 'task:run:answer:answered';
    const answered = await started({ call });
    await test.stores.ledger.settle(answered, { outcome: 'ok', charge: CHARGE, result: ANSWER }, undefined);
    const late = newAttempt({ call, n: '0.1.2.0' });
    expect(await test.stores.ledger.intent(late, caused(`${late.attemptKey}:started`))).toBe(false);
    expect(await test.stores.ledger.state(late)).toBeUndefined();
    expect(await eventsOf(`${late.attemptKey}:started`)).toBe(0);
  });

  it('is refused while another attempt of the call is open, and not after it was resolved', async () => {
    const call = 'task:run:answer:open';
    const first = await started({ call });
    const next = newAttempt({ call, n: '0.1.2.0' });
    expect(await test.stores.ledger.intent(next, undefined)).toBe(false);
    await test.stores.ledger.resolve(first, { to: 'estimated', outcome: 'lost', charge: ESTIMATE });
    expect(await test.stores.ledger.intent(next, undefined)).toBe(true);
  });

  it('is false once the attempt is over', async () => {
    const attempt = await started();
    await test.stores.ledger.resolve(attempt, { to: 'voided', outcome: 'lost', charge: NOTHING });
    expect(await test.stores.ledger.intent(attempt, undefined)).toBe(false);
  });

  it.each(['generation = 2', "mode = 'postgres'"])(
    'is refused, milestones and all, after the gate moved (%s)',
    async (change) => {
      const tenantId = `moved-${change.length}`;
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
      maxOutputTokens: attempt.estimate.maxOutputTokens,
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
    const first = await started({ call, n: '0.1.1.0' });
    const attempts = [
      first,
      ...(await besides(
        first,
        [2, 3, 4, 5, 6, 7, 8].map((n) => `0.1.${n}.0`),
      )),
    ];
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
