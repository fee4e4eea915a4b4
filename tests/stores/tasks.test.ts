import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { NewTask, TaskFilter, TaskRow } from '../../src/stores/tasks.ts';
import type { EventDraft } from '../../src/task/event.ts';
import { parseTaskInput, type TaskInput } from '../../src/task/input.ts';
import { NO_USAGE, NO_USAGE_TOTALS } from '../../src/task/usage.ts';
import { attemptOf, estimateOf } from '../support/holds.ts';
import { hardLimit, openTestStores, type TestStores } from '../support/stores.ts';

const BEGUN: EventDraft = { id: 'begun', type: 'task_started' };
const ENDED: EventDraft = { id: 'ended', type: 'task_completed' };

let test: TestStores;

function inputOf(fields: Record<string, unknown> = {}): TaskInput {
  const parsed = parseTaskInput({ tenantId: 'acme', userId: 'ada', query: 'why', ...fields });
  if (parsed.kind === 'invalid') throw new Error(JSON.stringify(parsed.faults));
  return parsed.input;
}

function newTask(taskId: string, change: Partial<NewTask> = {}): NewTask {
  return {
    taskId,
    runId: undefined,
    input: inputOf(),
    strategy: 'simple',
    model: 'a/b',
    limits: [],
    ...change,
  };
}

const begin = (
  taskId: string,
  runId = 'run-1',
  change: Partial<NewTask> = {},
  events: readonly EventDraft[] = [],
) => test.stores.tasks.begin({ ...newTask(taskId, change), runId }, events);

async function row(taskId: string): Promise<TaskRow> {
  const found = await test.stores.tasks.get(taskId);
  if (found === undefined) throw new Error(`no row of ${taskId}`);
  return found;
}

async function eventIds(taskId: string): Promise<string[]> {
  const { rows } = await test.postgres.query<{ id: string }>(
    'select id from events where task_id = $1 order by ordinal',
    [taskId],
  );
  return rows.map((event) => event.id);
}

beforeAll(async () => {
  test = await openTestStores();
});

afterAll(() => test[Symbol.asyncDispose]());

describe('the life of a task', () => {
  it('goes from queued over running and waiting to its end', async () => {
    const { tasks } = test.stores;
    const input = inputOf({ sessionId: 'talk', tier: 'large', priority: 'high' });
    expect(await tasks.queue(newTask('life', { input, model: undefined }))).toBe('queued');
    expect(await row('life')).toEqual({
      taskId: 'life',
      runId: undefined,
      tenantId: 'acme',
      userId: 'ada',
      sessionId: 'talk',
      status: 'queued',
      phase: 'queued',
      strategy: 'simple',
      priority: 'high',
      tier: 'large',
      model: undefined,
      createdAt: expect.any(Date),
      startedAt: undefined,
      endedAt: undefined,
      resultText: undefined,
      steps: [],
      error: undefined,
      waiting: undefined,
      usage: NO_USAGE_TOTALS,
      nanoUsd: 0n,
    });
    const { createdAt } = await row('life');
    expect(await begin('life', 'run-1', { input }, [BEGUN])).toBe(true);
    expect(await row('life')).toMatchObject({
      runId: 'run-1',
      status: 'running',
      model: 'a/b',
      createdAt,
      startedAt: expect.any(Date),
    });
    const waiting = { reason: 'openai rpm', until: '2030-01-01T00:00:00.000Z' };
    await tasks.note('life', 'run-1', { status: 'waiting', phase: 'waiting', waiting });
    expect(await row('life')).toMatchObject({ status: 'waiting', waiting });
    expect(await tasks.waitingCount()).toBe(1);
    await tasks.note('life', 'run-1', { status: 'running', phase: 'calling' });
    expect(await row('life')).toMatchObject({ status: 'running', phase: 'calling', waiting: undefined });
    const steps = [{ stepId: 'answer', status: 'completed', callKey: 'c', model: 'a/b' }];
    const end = { status: 'completed', resultText: 'because', steps } as const;
    expect(await tasks.end({ taskId: 'life', runId: 'run-1' }, end, [ENDED])).toBe(true);
    expect(await row('life')).toMatchObject({
      ...end,
      phase: 'completed',
      endedAt: expect.any(Date),
      createdAt,
    });
    expect(await eventIds('life')).toEqual(['begun', 'ended']);
    expect(await tasks.waitingCount()).toBe(0);
  });

  it('begins without having been queued, for a task of a plain client', async () => {
    expect(await begin('plain')).toBe(true);
    expect(await row('plain')).toMatchObject({ status: 'running', runId: 'run-1' });
  });

  it('begins once per run, also when it is begun many times at once', async () => {
    const answers = await Promise.all(Array.from({ length: 10 }, () => begin('once', 'run-1', {}, [BEGUN])));
    expect(answers.filter(Boolean)).toHaveLength(1);
    expect(await eventIds('once')).toEqual(['begun']);
    const before = await row('once');
    expect(
      await begin('once', 'run-1', { input: inputOf({ userId: 'eve' }) }, [{ ...BEGUN, id: 'other' }]),
    ).toBe(false);
    expect(await row('once')).toEqual(before);
    expect(await eventIds('once')).toEqual(['begun']);
  });

  it('does not come back to life when a begin of its run is repeated after its end', async () => {
    await begin('dead');
    await test.stores.tasks.end({ taskId: 'dead', runId: 'run-1' }, { status: 'failed' }, []);
    expect(await begin('dead')).toBe(false);
    expect((await row('dead')).status).toBe('failed');
  });

  it('ends once: the first end stays and writes its events', async () => {
    await begin('ends');
    const { tasks } = test.stores;
    const error = {
      type: 'NoModelAvailable',
      message: 'none',
      details: { type: 'NoModelAvailable', reason: 'auth' },
    } as const;
    const answers = await Promise.all([
      tasks.end({ taskId: 'ends', runId: 'run-1' }, { status: 'failed', error }, [
        { ...ENDED, id: 'failed' },
      ]),
      ...Array.from({ length: 5 }, (_, n) =>
        tasks.end({ taskId: 'ends', runId: 'run-1' }, { status: 'failed', error }, [
          { ...ENDED, id: `${n}` },
        ]),
      ),
    ]);
    expect(answers.filter(Boolean)).toHaveLength(1);
    expect(await eventIds('ends')).toHaveLength(1);
    expect(await row('ends')).toMatchObject({ status: 'failed', error });
    expect(
      await tasks.end({ taskId: 'ends', runId: 'run-1' }, { status: 'completed', resultText: 'x' }, []),
    ).toBe(false);
    await tasks.note('ends', 'run-1', { status: 'running', phase: 'calling' });
    expect(await row('ends')).toMatchObject({ status: 'failed', error, phase: 'failed' });
  });

  it('is ended by no run but its own, and by anybody when it never began', async () => {
    const { tasks } = test.stores;
    await begin('own', 'run-1');
    expect(await tasks.end({ taskId: 'own', runId: 'run-0' }, { status: 'failed' }, [ENDED])).toBe(false);
    expect(await eventIds('own')).toEqual([]);
    await tasks.queue(newTask('never'));
    expect(await tasks.end({ taskId: 'never', runId: 'run-9' }, { status: 'failed' }, [ENDED])).toBe(true);
    expect(await row('never')).toMatchObject({ runId: 'run-9', status: 'failed' });
    expect(await tasks.end({ taskId: 'nobody', runId: 'run-1' }, { status: 'failed' }, [ENDED])).toBe(false);
  });

  it('takes back a task that was queued and could not be started, not one that runs', async () => {
    const { tasks } = test.stores;
    await tasks.queue(newTask('taken-back'));
    await tasks.unqueue('taken-back');
    expect(await tasks.get('taken-back')).toBeUndefined();
    await begin('taken-back');
    await tasks.unqueue('taken-back');
    expect((await row('taken-back')).status).toBe('running');
  });

  it('keeps what a user wrote, in every script', async () => {
    const query = 'Zażółć 日本語 😀 "quoted" \\u0000 \n';
    await begin('texts', 'run-1', {
      input: inputOf({
        query,
        temperature: 0.3,
        responseFormat: { type: 'json_schema', schema: { a: [1] } },
      }),
    });
    expect(await test.stores.tasks.findMessages('texts')).toMatchObject({
      messages: [{ role: 'user', content: query }],
      temperature: 0.3,
      responseFormat: { type: 'json_schema', schema: { a: [1] } },
    });
    expect(await test.stores.tasks.findMessages('nobody')).toBeUndefined();
  });
});

describe('an id that is used again', () => {
  it('is free once its task has ended, for one of many', async () => {
    const { tasks } = test.stores;
    expect(await tasks.queue(newTask('again'))).toBe('queued');
    expect(await tasks.queue(newTask('again'))).toBe('taken');
    await begin('again', 'run-1');
    expect(await tasks.queue(newTask('again'))).toBe('taken');
    await tasks.end({ taskId: 'again', runId: 'run-1' }, { status: 'completed', resultText: 'old' }, []);
    const first = await row('again');
    const answers = await Promise.all(
      Array.from({ length: 5 }, () => tasks.queue(newTask('again', { input: inputOf({ userId: 'bob' }) }))),
    );
    expect(answers.filter((answer) => answer === 'queued')).toHaveLength(1);
    const second = await row('again');
    expect(second).toMatchObject({
      status: 'queued',
      userId: 'bob',
      runId: undefined,
      resultText: undefined,
      endedAt: undefined,
      startedAt: undefined,
    });
    expect(second.createdAt.getTime()).toBeGreaterThanOrEqual(
      first.endedAt?.getTime() ?? Number.POSITIVE_INFINITY,
    );
  });

  it('is taken over by another run with its epoch as it was', async () => {
    await begin('reset', 'run-1');
    await test.postgres.query("update tasks set epoch = 4 where task_id = 'reset'");
    const { createdAt } = await row('reset');
    expect(await begin('reset', 'run-2', {}, [{ ...BEGUN, id: 'run-2:begin' }])).toBe(true);
    expect(await row('reset')).toMatchObject({ runId: 'run-2', status: 'running', createdAt });
    const { rows } = await test.postgres.query("select epoch from tasks where task_id = 'reset'");
    expect(rows).toEqual([{ epoch: 4 }]);
    await test.stores.tasks.note('reset', 'run-1', { status: 'waiting', phase: 'waiting' });
    expect(await test.stores.tasks.end({ taskId: 'reset', runId: 'run-1' }, { status: 'failed' }, [])).toBe(
      false,
    );
    expect((await row('reset')).status).toBe('running');
  });
});

describe("a task's own limits", () => {
  it('are written when it begins, and leave those that somebody set before', async () => {
    await begin('limited', 'run-1', {
      limits: [hardLimit('usd', 2n), hardLimit('tokens', 9_007_199_254_740_993n)],
    });
    const scope = (id: string) => ({ kind: 'task', id }) as const;
    expect(await test.stores.limits.get('acme', scope('limited'))).toEqual([
      hardLimit('usd', 2n),
      hardLimit('tokens', 9_007_199_254_740_993n),
    ]);
    await test.stores.limits.set('acme', scope('raised'), [hardLimit('usd', 99n)], { by: 'test' });
    await begin('raised', 'run-1', { limits: [hardLimit('usd', 2n)] });
    expect(await test.stores.limits.get('acme', scope('raised'))).toEqual([hardLimit('usd', 99n)]);
  });

  it('are those of its run when an id is used again whose run before spent nothing', async () => {
    const limitsOf = (id: string) => test.stores.limits.get('acme', { kind: 'task', id });
    for (const id of ['direct', 'queued']) {
      await begin(id, 'run-1', { limits: [hardLimit('usd', 1n)] });
      await test.stores.tasks.end({ taskId: id, runId: 'run-1' }, { status: 'failed' }, []);
    }
    await begin('direct', 'run-2', { limits: [hardLimit('usd', 100n)] });
    expect(await limitsOf('direct')).toEqual([hardLimit('usd', 100n)]);
    expect(await test.stores.tasks.queue(newTask('queued'))).toBe('queued');
    expect(await limitsOf('queued')).toBeUndefined();
    await begin('queued', 'run-2', { limits: [hardLimit('usd', 100n)] });
    expect(await limitsOf('queued')).toEqual([hardLimit('usd', 100n)]);
  });
});

describe('list', () => {
  const page = (filter: Partial<TaskFilter>) => test.stores.tasks.list({ limit: 100, ...filter });

  it('shows every task of a moment once, page by page, newest first', async () => {
    const ids = Array.from({ length: 23 }, (_, n) => `tie-${String((n * 7) % 23).padStart(2, '0')}`);
    for (const id of ids) await begin(id, 'run-1', { input: inputOf({ tenantId: 'ties' }) });
    // Ten of one moment, ten of one a millisecond later, microseconds apart, and three of another hour.
    await test.postgres.query(
      `update tasks set created_at = case
         when task_id < 'tie-10' then timestamptz '2026-01-01 00:00:00.123Z'
         when task_id < 'tie-20' then timestamptz '2026-01-01 00:00:00.124Z' + make_interval(secs => (random() * 0.0004)::float8)
         else timestamptz '2026-01-01 01:00:00Z' end
       where tenant_id = 'ties'`,
    );
    const seen: string[] = [];
    for (let after: TaskFilter['after']; ; ) {
      const rows = await page({ tenantId: 'ties', limit: 4, after });
      seen.push(...rows.map((task) => task.taskId));
      const last = rows.at(-1);
      if (last === undefined) break;
      after = { createdAt: last.createdAt, taskId: last.taskId };
    }
    expect(seen).toEqual([...ids].sort().reverse());
  });

  it('filters by tenant, user, session and status together', async () => {
    const make = (id: string, fields: Record<string, unknown>) =>
      begin(id, 'run-1', { input: inputOf({ tenantId: 'filter', ...fields }) });
    await make('f1', { userId: 'ada', sessionId: 's1' });
    await make('f2', { userId: 'ada', sessionId: 's2' });
    await make('f3', { userId: 'bob', sessionId: 's1' });
    await test.stores.tasks.end({ taskId: 'f3', runId: 'run-1' }, { status: 'failed' }, []);
    const ids = async (filter: Partial<TaskFilter>) =>
      (await page({ tenantId: 'filter', ...filter })).map((task) => task.taskId).sort();
    expect(await ids({})).toEqual(['f1', 'f2', 'f3']);
    expect(await ids({ userId: 'ada' })).toEqual(['f1', 'f2']);
    expect(await ids({ sessionId: 's1' })).toEqual(['f1', 'f3']);
    expect(await ids({ status: 'failed' })).toEqual(['f3']);
    expect(await ids({ userId: 'ada', sessionId: 's1', status: 'running' })).toEqual(['f1']);
    expect(await ids({ tenantId: 'filter2' })).toEqual([]);
    expect(await ids({ userId: "x' or '1'='1" })).toEqual([]);
  });
});

describe('sums', () => {
  it('come from the ledger, all rows of the task together', async () => {
    const payer = { tenantId: 'acme', userId: 'ada', taskId: 'sums' };
    await begin('sums');
    await test.stores.ledger.gate('acme');
    const attempt = async (n: number) => {
      const made = attemptOf(
        { attemptKey: `sums:run-1:answer:1#0.1.${n}.0`, payer, estimate: estimateOf(9n), limits: [] },
        Date.now(),
      );
      await test.stores.ledger.intent(made, undefined);
      return made;
    };
    const usage = {
      ...NO_USAGE,
      inputTokens: 5,
      cacheReadTokens: 2,
      cacheWrite5mTokens: 3,
      cacheWrite1hTokens: 4,
      outputTokens: 6,
      reasoningTokens: 1,
    };
    const lost = await attempt(1);
    await test.stores.ledger.resolve(lost, {
      to: 'estimated',
      outcome: 'lost',
      charge: { usage, nanoUsd: 10n, source: 'estimated' },
    });
    await test.stores.ledger.adjustLate(lost, { usage: NO_USAGE, nanoUsd: 4n, source: 'measured' });
    const result = { status: 'completed', text: 'x', finishReason: 'stop' } as const;
    await test.stores.ledger.settle(
      await attempt(2),
      { outcome: 'ok', charge: { usage, nanoUsd: 7n, source: 'measured' }, result },
      undefined,
    );
    const summed = {
      usage: {
        inputTokens: 14,
        cachedInputTokens: 2,
        cacheWriteTokens: 7,
        outputTokens: 6,
        reasoningTokens: 1,
      },
      nanoUsd: 11n,
    };
    expect(await row('sums')).toMatchObject(summed);
    expect(await test.stores.tasks.list({ tenantId: 'acme', limit: 100 })).toContainEqual(
      expect.objectContaining({ taskId: 'sums', ...summed }),
    );
  });
});

describe('open', () => {
  it('lists what has no end and is older than a time, as many as asked for', async () => {
    const input = inputOf({ tenantId: 'open' });
    for (const id of ['o1', 'o2', 'o3', 'o4']) await begin(id, `${id}-run`, { input });
    await test.stores.tasks.queue(newTask('o5', { input }));
    await test.stores.tasks.end({ taskId: 'o3', runId: 'o3-run' }, { status: 'completed' }, []);
    await test.postgres.query(
      "update tasks set created_at = now() - interval '1 hour' where task_id in ('o1', 'o2', 'o3', 'o5')",
    );
    const open = await test.stores.tasks.open(1_800_000, 100);
    const mine = open.filter((task) => task.tenantId === 'open');
    expect(mine.sort((left, right) => (left.taskId < right.taskId ? -1 : 1))).toEqual([
      { taskId: 'o1', runId: 'o1-run', tenantId: 'open' },
      { taskId: 'o2', runId: 'o2-run', tenantId: 'open' },
      { taskId: 'o5', runId: undefined, tenantId: 'open' },
    ]);
    expect(await test.stores.tasks.open(1_800_000, 2)).toHaveLength(2);
  });
});
