import { describe, expect, it } from 'vitest';
import { AttemptFailed, CallAborted, createCalls } from '../../src/calls/govern.ts';
import { reap } from '../../src/calls/reaper.ts';
import type { LedgerRow } from '../../src/stores/accounts.ts';
import { NO_USAGE } from '../../src/task/usage.ts';
import { beginTask, callDependencies, contextOf, MODEL, requestOf, visitOnce } from '../support/calls.ts';
import { eventually } from '../support/eventually.ts';
import { createFakeModels } from '../support/fake-models.ts';
import { estimateOf, holdOnce } from '../support/holds.ts';
import { hardLimit, openTestStores, type TestStores } from '../support/stores.ts';

const USAGE = { ...NO_USAGE, inputTokens: 3, outputTokens: 2 };
const REPLY = { kind: 'reply', pieces: ['hello ', 'world'], usage: USAGE } as const;

function rowsOf(test: TestStores, taskId: string): Promise<readonly LedgerRow[]> {
  return test.stores.accounts.rows({ taskIds: [taskId] });
}

/** The counters of a task in Redis, told by the refusal of a hold that is larger than its limit. */
function heldOf(test: TestStores, taskId: string) {
  const amount = 1n << 50n;
  return holdOnce(test.stores, {
    attemptKey: `probe-${taskId}#0.1.1.0`,
    payer: { tenantId: 'tenant', userId: 'user', taskId },
    estimate: estimateOf(amount + 1n, 0),
    limits: [{ ...hardLimit('usd', amount), scope: { kind: 'task', id: taskId } }],
  });
}

describe('a visit that is answered', () => {
  it('charges the measured usage, keeps the text and returns it again without a request', async () => {
    await using test = await openTestStores();
    await beginTask(test, 'a');
    const models = createFakeModels([REPLY]);
    const dependencies = callDependencies(test, models);
    const outcome = await visitOnce(dependencies, 'a');
    expect(outcome).toMatchObject({
      kind: 'completed',
      model: MODEL,
      costUsd: '0.000007',
      finishReason: 'stop',
    });
    expect(await visitOnce(dependencies, 'a', { attempt: 2 })).toEqual(outcome);
    expect(models.requests).toHaveLength(1);
    expect((await test.stores.ledger.result('a:run:answer:1'))?.text).toBe('hello world');
    expect(await rowsOf(test, 'a')).toMatchObject([
      { kind: 'charge', nanoUsd: 7_000n, billable: true, usageSource: 'measured' },
    ]);
  });

  it('publishes the call and its text in order', async () => {
    await using test = await openTestStores();
    await beginTask(test, 'a');
    await visitOnce(callDependencies(test, createFakeModels([REPLY])), 'a');
    const events = await test.stores.events.ring('a', undefined, 100);
    expect(events.map((event) => event.seq)).toEqual(events.map((_, index) => index + 1));
    expect(events.map((event) => event.type).filter((type) => type !== 'call_delta')).toEqual([
      'task_started',
      'call_started',
      'call_completed',
    ]);
    const text = events.filter((event) => event.type === 'call_delta').map((event) => event.data?.['text']);
    expect(text.join('')).toBe('hello world');
  });

  it('recounts the text when the provider sent no usage, and marks it', async () => {
    await using test = await openTestStores();
    await beginTask(test, 'a');
    await visitOnce(
      callDependencies(test, createFakeModels([{ kind: 'reply', pieces: ['four words of text'] }])),
      'a',
    );
    expect(await rowsOf(test, 'a')).toMatchObject([
      { kind: 'charge', usageSource: 'recounted', inputTokens: 3n, outputTokens: 4n },
    ]);
  });

  it('keeps explicit zero usage at zero', async () => {
    await using test = await openTestStores();
    await beginTask(test, 'a');
    await visitOnce(
      callDependencies(test, createFakeModels([{ kind: 'reply', pieces: ['x'], usage: NO_USAGE }])),
      'a',
    );
    expect(await rowsOf(test, 'a')).toMatchObject([{ kind: 'charge', usageSource: 'measured', nanoUsd: 0n }]);
  });
});

describe('a task id that is used again', () => {
  it('gives its new run the whole budget it asked for, on top of what was spent', async () => {
    await using test = await openTestStores();
    const limits = [hardLimit('usd', 300_000n)];
    await beginTask(test, 'a', limits);
    await visitOnce(callDependencies(test, createFakeModels([REPLY])), 'a');
    await test.stores.tasks.end({ taskId: 'a', runId: 'run' }, { status: 'completed' }, []);
    await beginTask(test, 'a', limits, 'run-2');
    expect(await test.stores.limits.get('tenant', { kind: 'task', id: 'a' })).toMatchObject([
      { amount: 307_000n },
    ]);
  });
});

describe('a visit that a limit stops', () => {
  it('refuses what settled spend leaves no room for, and sends nothing', async () => {
    await using test = await openTestStores();
    await beginTask(test, 'a', [hardLimit('usd', 10n)]);
    const models = createFakeModels([REPLY]);
    const outcome = await visitOnce(callDependencies(test, models), 'a');
    expect(outcome).toMatchObject({
      kind: 'refuse',
      failure: { type: 'BudgetExceeded', scope: 'task', id: 'a', limit: '0.00000001', settled: '0.00' },
    });
    expect(models.requests).toHaveLength(0);
    expect(await rowsOf(test, 'a')).toEqual([]);
    expect(await test.stores.limits.lastRefusal('tenant', { kind: 'task', id: 'a' })).toMatchObject({
      details: { type: 'BudgetExceeded' },
    });
  });

  it('waits while only the holds of others stand in the way', async () => {
    await using test = await openTestStores({
      defaultLimits: { tenant: [], user: [hardLimit('usd', 300_000n)], session: [], task: [] },
    });
    await beginTask(test, 'a');
    await beginTask(test, 'b');
    let release: (value?: unknown) => void = () => undefined;
    const until = new Promise((resolve) => {
      release = resolve;
    });
    const dependencies = callDependencies(test, createFakeModels([{ ...REPLY, until }, REPLY]));
    const first = visitOnce(dependencies, 'a');
    await eventually(async () => {
      const { count } = await test.stores.ledger.openHolds();
      if (count !== 1) throw new Error('the first call is not under way');
    });
    const crowded = await visitOnce(dependencies, 'b');
    expect(crowded).toMatchObject({
      kind: 'held',
      limit: 'budget of user user',
      failure: { type: 'BudgetExceeded' },
    });
    release();
    await first;
    expect(await visitOnce(dependencies, 'b', { visit: 2 })).toMatchObject({ kind: 'completed' });
  });

  it('gives the hold back when the rate says wait', async () => {
    await using test = await openTestStores({ rates: { rules: { provider: () => ({ rpm: 1 }) } } });
    await beginTask(test, 'a');
    await beginTask(test, 'b', [hardLimit('usd', 1_000_000n)]);
    const models = createFakeModels([REPLY]);
    const dependencies = callDependencies(test, models);
    await visitOnce(dependencies, 'a');
    const outcome = await visitOnce(dependencies, 'b');
    expect(outcome).toMatchObject({ kind: 'wait', reason: 'rate', limit: 'simulated rpm' });
    expect(outcome.kind === 'wait' && outcome.ms).toBeGreaterThan(50_000);
    expect(await heldOf(test, 'b')).toMatchObject({ kind: 'refused', held: 0n, settled: 0n });
    expect(models.requests).toHaveLength(1);
  });

  it('does not ask a provider again before its hint is over', async () => {
    await using test = await openTestStores();
    await beginTask(test, 'a');
    const models = createFakeModels([
      {
        kind: 'error',
        error: { kind: 'rate_limited', stage: 'answered', status: 429, retryAfterMs: 40_000 },
      },
    ]);
    const dependencies = callDependencies(test, models);
    expect(await visitOnce(dependencies, 'a')).toMatchObject({
      kind: 'wait',
      reason: 'provider_limit',
      ms: 40_000,
    });
    const again = await visitOnce(dependencies, 'a', { visit: 2 });
    expect(again).toMatchObject({ kind: 'wait', reason: 'provider_limit', limit: 'simulated cooldown' });
    expect(models.requests).toHaveLength(1);
    expect(await rowsOf(test, 'a')).toMatchObject([{ kind: 'charge', nanoUsd: 0n }]);
  });

  it('refuses when the hint ends after the deadline', async () => {
    await using test = await openTestStores();
    await beginTask(test, 'a');
    const models = createFakeModels([
      { kind: 'error', error: { kind: 'overloaded', stage: 'answered', status: 529, retryAfterMs: 40_000 } },
    ]);
    const outcome = await visitOnce(callDependencies(test, models), 'a', { remainingMs: 5_000 });
    expect(outcome).toMatchObject({
      kind: 'refuse',
      failure: { type: 'RateLimited', status: 529, retryAfterMs: 40_000 },
    });
  });
});

describe('a visit whose attempt fails', () => {
  const failing = (stage: 'unsent' | 'unanswered' | 'answered' | 'output', pieces: readonly string[] = []) =>
    ({
      kind: 'error',
      pieces,
      error: { kind: stage === 'answered' ? 'unknown' : 'connection', stage },
    }) as const;

  it('voids what never left, estimates what was not answered, charges what was streamed', async () => {
    await using test = await openTestStores();
    await beginTask(test, 'a');
    const models = createFakeModels([failing('unsent'), failing('output', ['two words']), REPLY]);
    const dependencies = callDependencies(test, models);
    for (const attempt of [1, 2])
      await expect(visitOnce(dependencies, 'a', { attempt })).rejects.toBeInstanceOf(AttemptFailed);
    await visitOnce(dependencies, 'a', { attempt: 3 });
    await beginTask(test, 'b');
    await expect(
      visitOnce(callDependencies(test, createFakeModels([failing('unanswered')])), 'b'),
    ).rejects.toBeInstanceOf(AttemptFailed);
    expect(
      (await rowsOf(test, 'a')).map((row) => [row.kind, row.usageSource, row.outputTokens, row.billable]),
    ).toEqual([
      ['void', 'none', 0n, false],
      ['charge', 'recounted', 2n, false],
      ['charge', 'measured', 2n, true],
    ]);
    expect(await rowsOf(test, 'b')).toMatchObject([
      { kind: 'estimate', usageSource: 'estimated', billable: false },
    ]);
    expect(await test.stores.ledger.openHolds()).toMatchObject({ count: 0 });
  });

  it('has the user pay for attempts without an answer where the operator wants that, and never for a void', async () => {
    await using test = await openTestStores({ lostAttempts: 'user' });
    await beginTask(test, 'a');
    const steps = [failing('unsent'), failing('output', ['two words']), failing('unanswered'), REPLY];
    const dependencies = callDependencies(test, createFakeModels(steps), { attemptsPerCandidate: 9 });
    for (const attempt of [1, 2, 3])
      await expect(visitOnce(dependencies, 'a', { attempt })).rejects.toBeInstanceOf(AttemptFailed);
    await visitOnce(dependencies, 'a', { attempt: 4 });
    expect((await rowsOf(test, 'a')).map((row) => [row.kind, row.billable])).toEqual([
      ['void', false],
      ['charge', true],
      ['estimate', true],
      ['charge', true],
    ]);
  });

  it('gives up on the model after three failed attempts', async () => {
    await using test = await openTestStores();
    await beginTask(test, 'a');
    const dependencies = callDependencies(
      test,
      createFakeModels([failing('answered'), failing('answered'), failing('answered')]),
    );
    for (const attempt of [1, 2])
      await expect(visitOnce(dependencies, 'a', { attempt })).rejects.toBeInstanceOf(AttemptFailed);
    expect(await visitOnce(dependencies, 'a', { attempt: 3 })).toMatchObject({
      kind: 'unavailable',
      reason: 'unknown',
    });
    const rows = await rowsOf(test, 'a');
    expect(rows.map((row) => [row.kind, row.nanoUsd])).toEqual([
      ['charge', 0n],
      ['charge', 0n],
      ['charge', 0n],
    ]);
  });

  it('answers unavailable while the breaker is open, holding nothing', async () => {
    await using test = await openTestStores();
    const models = createFakeModels(() => failing('answered'));
    const dependencies = callDependencies(test, models);
    for (const taskId of ['a', 'b', 'c', 'd', 'e']) {
      await beginTask(test, taskId);
      await expect(visitOnce(dependencies, taskId)).rejects.toBeInstanceOf(AttemptFailed);
    }
    await beginTask(test, 'f');
    expect(await visitOnce(dependencies, 'f')).toMatchObject({ kind: 'unavailable', reason: 'breaker_open' });
    expect(models.requests).toHaveLength(5);
    expect(await rowsOf(test, 'f')).toEqual([]);
  });

  it('ends a stream that hangs after its first words by its own limit', async () => {
    await using test = await openTestStores();
    await beginTask(test, 'a');
    const dependencies = callDependencies(
      test,
      createFakeModels([{ kind: 'hang', pieces: ['some words'] }]),
      { chunkGapMs: 150 },
    );
    await expect(visitOnce(dependencies, 'a')).rejects.toBeInstanceOf(AttemptFailed);
    expect(await rowsOf(test, 'a')).toMatchObject([
      { kind: 'charge', usageSource: 'recounted', outputTokens: 2n, billable: false },
    ]);
  });
});

describe('a visit that is cancelled', () => {
  it('settles what was streamed, bills it once, and never sends again', async () => {
    await using test = await openTestStores();
    await beginTask(test, 'a');
    const models = createFakeModels([{ kind: 'hang', pieces: ['some words came'] }]);
    const dependencies = callDependencies(test, models);
    const controller = new AbortController();
    const visit = createCalls(dependencies).visit(requestOf('a'), contextOf(controller));
    await eventually(() => {
      if (models.inFlight() !== 1) throw new Error('not sent yet');
    });
    controller.abort(new Error('the user left'));
    await expect(visit).rejects.toMatchObject({ name: 'CallAborted', by: 'cancelled' });
    await expect(visitOnce(dependencies, 'a', { attempt: 2 })).rejects.toBeInstanceOf(CallAborted);
    expect(models.requests).toHaveLength(1);
    expect(await rowsOf(test, 'a')).toMatchObject([
      { kind: 'charge', usageSource: 'recounted', outputTokens: 3n, billable: true },
    ]);
  });
});

describe('a visit after a lost attempt', () => {
  it('waits for a predecessor that shows life and returns its answer', async () => {
    await using test = await openTestStores();
    await beginTask(test, 'a');
    let answer: (value?: unknown) => void = () => undefined;
    const until = new Promise((resolve) => {
      answer = resolve;
    });
    const models = createFakeModels([{ ...REPLY, until }]);
    const dependencies = callDependencies(test, models);
    const first = visitOnce(dependencies, 'a');
    await eventually(() => {
      if (models.inFlight() !== 1) throw new Error('not sent yet');
    });
    const second = visitOnce(dependencies, 'a', { attempt: 2 });
    answer();
    expect(await second).toEqual(await first);
    expect(models.requests).toHaveLength(1);
    expect(await rowsOf(test, 'a')).toHaveLength(1);
  });

  it('estimates a predecessor whose lease ran out; what it took after all is booked as the difference', async () => {
    await using test = await openTestStores({ leaseMs: 200 });
    await beginTask(test, 'a');
    let thaw: (value?: unknown) => void = () => undefined;
    const until = new Promise((resolve) => {
      thaw = resolve;
    });
    const models = createFakeModels([{ ...REPLY, until }, REPLY]);
    // A frozen worker renews nothing: its renewal comes after the test.
    const frozen = callDependencies(test, models, { leaseMs: 200, leaseRenewalMs: 600_000 });
    const first = visitOnce(frozen, 'a');
    await eventually(() => {
      if (models.inFlight() !== 1) throw new Error('not sent yet');
    });
    expect(await visitOnce(frozen, 'a', { attempt: 2 })).toMatchObject({ kind: 'completed' });
    thaw();
    await expect(first).rejects.toMatchObject({ by: 'fenced' });
    const rows = await rowsOf(test, 'a');
    expect(rows.map((row) => [row.kind, row.adjustKey, row.billable])).toEqual([
      ['adjust', 'late', false],
      ['estimate', '', false],
      ['charge', '', true],
    ]);
    const total = rows.reduce((sum, row) => sum + row.nanoUsd, 0n);
    expect(total).toBe(14_000n);
    const spent = await test.stores.accounts.settled('tenant', { kind: 'task', id: 'a' });
    expect(spent.nanoUsd).toBe(total);
  });
});

describe('reap', () => {
  it('applies a settlement that was committed and never released', async () => {
    await using test = await openTestStores({ leaseMs: 150 });
    await beginTask(test, 'a', [hardLimit('usd', 10_000_000n)]);
    const models = createFakeModels([REPLY]);
    const dependencies = callDependencies(test, models, { leaseMs: 150 });
    // The worker dies between commit and release.
    const dying = {
      ...dependencies,
      gate: { ...dependencies.gate, release: () => Promise.reject(new Error('killed')) },
    };
    await visitOnce(dying, 'a');
    expect(await heldOf(test, 'a')).toMatchObject({ settled: 0n });
    await eventually(async () => {
      await reap(dependencies, async () => 0);
      expect(await heldOf(test, 'a')).toMatchObject({ held: 0n, settled: 7_000n });
    });
  });

  it('leaves an attempt alone whose owner is alive, and resolves it when the owner is dead', async () => {
    await using test = await openTestStores({ leaseMs: 150 });
    await beginTask(test, 'a');
    const models = createFakeModels([{ kind: 'hang' }]);
    const dependencies = callDependencies(test, models, { leaseMs: 150, leaseRenewalMs: 600_000 });
    const controller = new AbortController();
    const visit = createCalls(dependencies).visit(requestOf('a'), contextOf(controller, 'handover'));
    await eventually(async () => {
      const report = await reap(dependencies, async () => 150);
      expect(report.alive).toBe(1);
    });
    expect(await rowsOf(test, 'a')).toEqual([]);
    await eventually(async () => {
      const report = await reap(dependencies, async () => 0);
      expect(report.resolved).toBe(1);
    });
    expect(await rowsOf(test, 'a')).toMatchObject([{ kind: 'estimate' }]);
    controller.abort(new Error('stop'));
    await expect(visit).rejects.toBeInstanceOf(CallAborted);
  });

  it('voids a row whose attempt was never marked sent', async () => {
    await using test = await openTestStores({ leaseMs: 150 });
    await beginTask(test, 'a');
    const dependencies = callDependencies(test, createFakeModels([REPLY]), { leaseMs: 150 });
    // The worker dies between intent and mark.
    const dying = {
      ...dependencies,
      gate: { ...dependencies.gate, markSent: () => Promise.reject(new Error('killed')) },
    };
    await expect(visitOnce(dying, 'a')).rejects.toThrow('killed');
    await eventually(async () => {
      await reap(dependencies, async () => 0);
      expect(await rowsOf(test, 'a')).toMatchObject([{ kind: 'void' }]);
    });
    expect(await heldOf(test, 'a')).toMatchObject({ held: 0n });
  });
});
