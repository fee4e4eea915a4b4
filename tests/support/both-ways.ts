// One logical call driven by the workflow, and the same one by the direct way: the same stores, the same rules, and models that answer
// what a row of a table wrote down.

import { createModelActivities } from '../../src/activities/model.ts';
import { type Breaker, createBreaker } from '../../src/calls/breaker.ts';
import type { CallDependencies } from '../../src/calls/call.ts';
import { createCalls, isProviderFailure } from '../../src/calls/govern.ts';
import { pause } from '../../src/calls/pause.ts';
import { routeCall } from '../../src/calls/route.ts';
import type { ModelRequest } from '../../src/llm/language-model.ts';
import type { Limit } from '../../src/task/budget.ts';
import type { TaskResult } from '../../src/workflows/messages.ts';
import { beginTask, callDependencies, contextOf, PRICE } from './calls.ts';
import { failureOf, fakeActivities, start } from './fake-activities.ts';
import { createFakeModels, type FakeStep } from './fake-models.ts';
import type { TestStores } from './stores.ts';
import { SETTINGS, startWorkflowWorker, type WorkflowWorker } from './workflow-worker.ts';

export type RoutedRow = {
  /** What each candidate answers, request by request; the last step is repeated. */
  readonly script: readonly (readonly FakeStep[])[];
  /** From now on, in milliseconds. */
  readonly deadlineMs?: number;
  readonly breaker?: { readonly failureThreshold: number; readonly timeoutMs: number };
  readonly budget?: readonly Limit[];
  /** Candidates, by their place, that cost nothing. */
  readonly free?: readonly number[];
};

export type RoutedEnd = {
  /** Places of the candidates that were asked, in order; each is one request to a provider. */
  readonly asked: readonly number[];
  /** The place of the candidate that answered, or the failure. */
  readonly answeredBy?: number;
  readonly failure?: unknown;
};

type Stage = ReturnType<typeof stageOf>;

/** Providers of one call alone, so that no cooling and no breaker is another row's. */
function stageOf(test: TestStores, row: RoutedRow, name: string) {
  const candidates = row.script.map((_, place) => `${name}-${place}/model`);
  const placeOf = (model: string) => candidates.indexOf(model);
  const asked: number[] = [];
  const models = createFakeModels(({ model }: ModelRequest) => {
    const place = placeOf(model);
    const steps = row.script[place] ?? [];
    const step = steps[asked.filter((other) => other === place).length] ?? steps.at(-1);
    if (step === undefined) throw new Error('the row has no step for this candidate');
    asked.push(place);
    return step;
  });
  const made = callDependencies(test, models, { shortHintMs: SHORT_HINT_MS });
  const breakers = new Map(candidates.map((model) => [model, breakerOf(model, row)]));
  const free = { ...PRICE, input: 0n, cachedInput: 0n, cacheWrite5m: 0n, cacheWrite1h: 0n, output: 0n };
  const dependencies: CallDependencies = {
    ...made,
    breakerOf: (model) => breakers.get(model) ?? made.breakerOf(model),
    catalog: {
      priceHash: 'hash',
      modelOf: (model) => ({
        maxOutputTokens: 1_000,
        prices: [row.free?.includes(placeOf(model)) === true ? free : PRICE],
      }),
    },
  };
  return { candidates, placeOf, asked, dependencies, calls: createCalls(dependencies) };
}

function breakerOf(model: string, { breaker }: RoutedRow): Breaker {
  const settings = {
    ...{ enabled: true, intervalMs: 60_000, timeoutMs: 30_000, failureThreshold: 100, successThreshold: 1 },
    ...{ maxRequests: 1, ...breaker },
  };
  const options = { isFailure: isProviderFailure, onChange: () => undefined, hangMs: 600_000 };
  return createBreaker(`llm:${model}`, () => settings, options);
}

/** Hints up to this long are short ones. */
const SHORT_HINT_MS = 300;

export type BothWays = AsyncDisposable & {
  /** Runs a row by one of the two ways. */
  run(way: 'workflow' | 'direct', row: RoutedRow): Promise<RoutedEnd>;
};

/** One worker for all rows: each is found by its workflow's id. */
export async function openBothWays(test: TestStores): Promise<BothWays> {
  const staged = new Map<string, { readonly row: RoutedRow; readonly stage: Stage }>();
  const of = (taskId: string) => {
    const found = staged.get(taskId);
    if (found === undefined) throw new Error(`no row runs as ${taskId}`);
    return found;
  };
  const { tasks, events } = test.stores;
  const { callModel } = createModelActivities({
    calls: {
      visit: (request, context) => of(request.payer.taskId ?? '').stage.calls.visit(request, context),
    },
    ...{ tasks, events, log: test.log },
  });
  const worker = await startWorkflowWorker(
    fakeActivities({
      begin: async ({ taskId, runId }) => {
        const { row, stage } = of(taskId);
        await beginTask(test, taskId, row.budget, runId);
        const { candidates } = stage;
        const settings = { ...SETTINGS, candidates, heldWaitMs: 100, shortHintMs: SHORT_HINT_MS };
        return { kind: 'go', settings };
      },
      callModel,
    }),
  );
  return {
    async run(way, row) {
      const taskId = `${way}-${worker.taskQueue}-${staged.size}`;
      const stage = stageOf(test, row, taskId);
      staged.set(taskId, { row, stage });
      const end =
        way === 'workflow'
          ? await byWorkflow(worker, row, { taskId, stage })
          : await byDirectWay(test, row, { taskId, stage });
      return { asked: stage.asked, ...end };
    },
    [Symbol.asyncDispose]: () => worker[Symbol.asyncDispose](),
  };
}

type One = { readonly taskId: string; readonly stage: Stage };

async function byWorkflow(
  worker: WorkflowWorker,
  { deadlineMs }: RoutedRow,
  { taskId, stage }: One,
): Promise<Omit<RoutedEnd, 'asked'>> {
  const input = {
    ...{ tenantId: 'tenant', userId: 'user', query: 'one two three' },
    ...(deadlineMs === undefined ? {} : { deadline: new Date(Date.now() + deadlineMs).toISOString() }),
  };
  const handle = await start(worker, input, taskId);
  try {
    const result: TaskResult = await handle.result();
    return { answeredBy: stage.placeOf(result.model) };
  } catch {
    return { failure: (await failureOf(handle)).details?.[0] };
  }
}

async function byDirectWay(
  test: TestStores,
  row: RoutedRow,
  { taskId, stage: { candidates, calls, placeOf } }: One,
): Promise<Omit<RoutedEnd, 'asked'>> {
  await beginTask(test, taskId, row.budget);
  const deadlineMs = row.deadlineMs === undefined ? Number.POSITIVE_INFINITY : Date.now() + row.deadlineMs;
  const times = { heldWaitMs: 100, shortHintMs: SHORT_HINT_MS, maxDurationMs: 60_000, deadlineMs };
  const end = await routeCall(
    { calls, pause },
    {
      callKey: `${taskId}:run:0:1`,
      stepId: 'answer',
      // A chat has no task; here it lends the row its limits.
      payer: { tenantId: 'tenant', userId: 'user', taskId },
      task: undefined,
      messages: [{ role: 'user', content: 'one two three' }],
      maxOutputTokens: 100,
      onExceeded: 'refuse',
      route: { candidates, cheaper: [], ...times },
      maxWaitMs: 10_000,
    },
    contextOf(),
  );
  return end.kind === 'answered' ? { answeredBy: placeOf(end.outcome.model) } : { failure: end.failure };
}
