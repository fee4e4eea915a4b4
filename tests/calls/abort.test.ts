// What a cancellation does to a call that is under way, by the task's policy, and what the ledger says of it afterwards.

import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { startSimulatedProvider } from '../../dev/simulated-provider/server.ts';
import type { CallDependencies } from '../../src/calls/call.ts';
import { AttemptFailed, createCalls } from '../../src/calls/govern.ts';
import type { LanguageModels, ModelRequest } from '../../src/llm/language-model.ts';
import { createLanguageModels } from '../../src/llm/models.ts';
import type { Protocol } from '../../src/llm/protocol.ts';
import type { LedgerRow } from '../../src/stores/accounts.ts';
import type { AbortPolicy } from '../../src/task/input.ts';
import { NO_USAGE, totalInputTokens } from '../../src/task/usage.ts';
import { anthropicSse, startWire } from '../llm/wire.ts';
import { beginTask, callDependencies, contextOf, MODEL, requestOf } from '../support/calls.ts';
import { createFakeModels, type FakeStep } from '../support/fake-models.ts';
import { openTestStores, type TestStores } from '../support/stores.ts';

const USAGE = { ...NO_USAGE, inputTokens: 3, outputTokens: 7 };
const POLICIES = ['cancel', 'drain', 'detach'] as const;
/** No limit of the call's own ends it. */
const PATIENT = { chunkGapMs: 600_000, firstTokenMs: 600_000, attemptMs: 600_000, drainCapMs: 600_000 };
const callKeyOf = (taskId: string) => `${taskId}:run:answer:1`;

let test: TestStores;
let tasks = 0;

beforeAll(async () => {
  test = await openTestStores();
});

afterAll(() => test[Symbol.asyncDispose]());

/** A task of its own for each test: its calls, rows and events are found by its id. */
async function newTask(): Promise<string> {
  tasks += 1;
  const taskId = `task-${tasks}`;
  await beginTask(test, taskId);
  return taskId;
}

function rowsOf(taskId: string): Promise<readonly LedgerRow[]> {
  return test.stores.accounts.rows({ taskIds: [taskId] });
}

async function textForReaders(taskId: string): Promise<string> {
  const events = await test.stores.events.ring(taskId, undefined, 100);
  return events
    .filter((event) => event.type === 'call_delta')
    .map((event) => event.data?.['text'])
    .join('');
}

/** A step that says `some words`, and goes on when the test lets it. */
function interrupted(rest: FakeStep & { readonly last?: string }) {
  const gate = Promise.withResolvers<void>();
  const { last = ' and more', ...step } = rest;
  const pieces = (async function* () {
    yield 'some words';
    await gate.promise;
    yield last;
  })();
  return { step: { ...step, pieces } satisfies FakeStep, goOn: () => gate.resolve() };
}

/** A visit that can be cancelled once its first words have come, or as many tokens as are `enough`. */
function begin(
  taskId: string,
  dependencies: CallDependencies,
  abort: AbortPolicy,
  {
    by = 'cancelled',
    messages,
    enough = 1,
  }: { by?: 'cancelled' | 'handover'; messages?: ModelRequest['messages']; enough?: number } = {},
) {
  const controller = new AbortController();
  const letGo = new AbortController();
  const heard = Promise.withResolvers<void>();
  const beat = (tokens: number) => (tokens < enough ? undefined : heard.resolve());
  const context = { ...contextOf(controller, by, { abort, letGo }), beat };
  const request = { ...requestOf(taskId), ...(messages === undefined ? {} : { messages }) };
  const outcome = createCalls(dependencies).visit(request, context);
  // Looked at only after the test has done its part.
  outcome.catch(() => undefined);
  return { outcome, heard: heard.promise, cancel: () => controller.abort(new Error('the user left')), letGo };
}

const aborted = (by: string) => ({ name: 'CallAborted', by });

describe('cancel', () => {
  it('closes the socket and bills the words that came, once', async () => {
    const taskId = await newTask();
    const { step } = interrupted({ kind: 'reply', usage: USAGE });
    const models = createFakeModels([step]);
    const visit = begin(taskId, callDependencies(test, models), 'cancel');
    await visit.heard;
    visit.cancel();
    await expect(visit.outcome).rejects.toMatchObject(aborted('cancelled'));
    expect(models.inFlight()).toBe(0);
    expect(await rowsOf(taskId)).toMatchObject([
      { kind: 'charge', usageSource: 'recounted', inputTokens: 3n, outputTokens: 2n, billable: true },
    ]);
    expect(await test.stores.ledger.result(callKeyOf(taskId))).toMatchObject({
      status: 'cancelled',
      text: 'some words',
    });
  });

  it.each([
    ['more than the text has', { ...NO_USAGE, inputTokens: 5, outputTokens: 9 }, 5n, 9n],
    ['zero', NO_USAGE, 0n, 0n],
  ])(
    'settles at what the provider counted along the way, be it %s',
    async (_title, running, input, output) => {
      const taskId = await newTask();
      const { step } = interrupted({ kind: 'hang', running });
      const visit = begin(taskId, callDependencies(test, createFakeModels([step])), 'cancel');
      await visit.heard;
      visit.cancel();
      await expect(visit.outcome).rejects.toMatchObject(aborted('cancelled'));
      expect(await rowsOf(taskId)).toMatchObject([
        { kind: 'charge', usageSource: 'measured', inputTokens: input, outputTokens: output },
      ]);
    },
  );
});

describe('drain', () => {
  it('ends the call for its readers and bills what the provider measured', async () => {
    const taskId = await newTask();
    const { step, goOn } = interrupted({ kind: 'reply', usage: USAGE });
    const models = createFakeModels([step]);
    const dependencies = callDependencies(test, models);
    const visit = begin(taskId, dependencies, 'drain');
    await visit.heard;
    visit.cancel();
    visit.cancel();
    goOn();
    await expect(visit.outcome).rejects.toMatchObject(aborted('cancelled'));
    expect(await rowsOf(taskId)).toMatchObject([
      { kind: 'charge', usageSource: 'measured', inputTokens: 3n, outputTokens: 7n, billable: true },
    ]);
    expect(await textForReaders(taskId)).toBe('some words');
    expect(await test.stores.ledger.result(callKeyOf(taskId))).toMatchObject({
      status: 'cancelled',
      text: 'some words',
      nanoUsd: 17_000n,
    });
    await expect(begin(taskId, dependencies, 'drain').outcome).rejects.toMatchObject(aborted('cancelled'));
    expect(models.requests).toHaveLength(1);
  });

  it('keeps an explicit zero', async () => {
    const taskId = await newTask();
    const { step, goOn } = interrupted({ kind: 'reply', usage: NO_USAGE });
    const visit = begin(taskId, callDependencies(test, createFakeModels([step])), 'drain');
    await visit.heard;
    visit.cancel();
    goOn();
    await expect(visit.outcome).rejects.toMatchObject(aborted('cancelled'));
    expect(await rowsOf(taskId)).toMatchObject([{ usageSource: 'measured', nanoUsd: 0n, outputTokens: 0n }]);
  });

  it('recounts all that came where the provider sends no usage', async () => {
    const taskId = await newTask();
    const { step, goOn } = interrupted({ kind: 'reply' });
    const visit = begin(taskId, callDependencies(test, createFakeModels([step])), 'drain');
    await visit.heard;
    visit.cancel();
    goOn();
    await expect(visit.outcome).rejects.toMatchObject(aborted('cancelled'));
    expect(await rowsOf(taskId)).toMatchObject([{ usageSource: 'recounted', outputTokens: 4n }]);
    expect(await test.stores.ledger.result(callKeyOf(taskId))).toMatchObject({ text: 'some words' });
  });

  it('ends as a cancelled call when its cap is reached', async () => {
    const taskId = await newTask();
    const { step, goOn } = interrupted({ kind: 'hang' });
    const models = createFakeModels([step]);
    const visit = begin(taskId, callDependencies(test, models, { ...PATIENT, drainCapMs: 100 }), 'drain');
    await visit.heard;
    visit.cancel();
    goOn();
    await expect(visit.outcome).rejects.toMatchObject(aborted('cancelled'));
    expect(models.inFlight()).toBe(0);
    expect(await rowsOf(taskId)).toMatchObject([
      { kind: 'charge', usageSource: 'recounted', outputTokens: 4n, billable: true },
    ]);
    expect(await test.stores.ledger.result(callKeyOf(taskId))).toMatchObject({
      status: 'cancelled',
      text: 'some words',
    });
  });

  it.each([
    ['is cut', { kind: 'cut', stage: 'output' } as const, 'recounted', 4n],
    [
      'ends with an error and a count',
      { kind: 'unknown', stage: 'answered', usage: USAGE } as const,
      'measured',
      7n,
    ],
    ['was refused', { kind: 'overloaded', stage: 'answered', status: 529 } as const, 'measured', 0n],
  ])('settles a stream that %s meanwhile, and tries no other', async (_title, error, source, output) => {
    const taskId = await newTask();
    const { step, goOn } = interrupted({ kind: 'error', error });
    // The provider of the tests after this one is not throttled.
    const learntRates = { heard: async () => undefined, throttled: async () => undefined };
    const dependencies = { ...callDependencies(test, createFakeModels([step])), learntRates };
    const visit = begin(taskId, dependencies, 'drain');
    await visit.heard;
    visit.cancel();
    goOn();
    await expect(visit.outcome).rejects.toMatchObject(aborted('cancelled'));
    expect(await rowsOf(taskId)).toMatchObject([
      { kind: 'charge', usageSource: source, outputTokens: output, billable: true },
    ]);
  });

  it('settles as it stands when the process must stop', async () => {
    const taskId = await newTask();
    const { step } = interrupted({ kind: 'reply', usage: USAGE });
    const visit = begin(taskId, callDependencies(test, createFakeModels([step]), PATIENT), 'drain');
    await visit.heard;
    visit.cancel();
    visit.letGo.abort(new Error('the worker stops'));
    await expect(visit.outcome).rejects.toMatchObject(aborted('cancelled'));
    expect(await rowsOf(taskId)).toMatchObject([
      { kind: 'charge', usageSource: 'recounted', outputTokens: 2n, billable: true },
    ]);
  });
});

describe('detach', () => {
  it('lets the call finish as if nobody had cancelled', async () => {
    const taskId = await newTask();
    const { step, goOn } = interrupted({ kind: 'reply', usage: USAGE });
    const visit = begin(taskId, callDependencies(test, createFakeModels([step])), 'detach');
    await visit.heard;
    visit.cancel();
    visit.cancel();
    goOn();
    expect(await visit.outcome).toMatchObject({ kind: 'completed', costUsd: '0.000017' });
    expect(await rowsOf(taskId)).toMatchObject([
      { kind: 'charge', usageSource: 'measured', outputTokens: 7n, billable: true },
    ]);
    expect(await textForReaders(taskId)).toBe('some words and more');
    expect(await test.stores.ledger.result(callKeyOf(taskId))).toMatchObject({
      status: 'completed',
      text: 'some words and more',
    });
  });

  it('fails as it would have without the cancellation', async () => {
    const taskId = await newTask();
    const { step, goOn } = interrupted({ kind: 'error', error: { kind: 'cut', stage: 'output' } });
    const visit = begin(taskId, callDependencies(test, createFakeModels([step])), 'detach');
    await visit.heard;
    visit.cancel();
    goOn();
    await expect(visit.outcome).rejects.toBeInstanceOf(AttemptFailed);
    expect(await rowsOf(taskId)).toMatchObject([{ kind: 'charge', outputTokens: 4n, billable: false }]);
    expect(await test.stores.ledger.result(callKeyOf(taskId))).toBeUndefined();
  });

  it('ends as a cancelled call when the process must stop', async () => {
    const taskId = await newTask();
    const { step } = interrupted({ kind: 'reply', usage: USAGE });
    const visit = begin(taskId, callDependencies(test, createFakeModels([step]), PATIENT), 'detach');
    await visit.heard;
    visit.cancel();
    visit.letGo.abort(new Error('the worker stops'));
    await expect(visit.outcome).rejects.toMatchObject(aborted('cancelled'));
    expect(await rowsOf(taskId)).toMatchObject([
      { kind: 'charge', usageSource: 'recounted', outputTokens: 2n, billable: true },
    ]);
    expect(await test.stores.ledger.result(callKeyOf(taskId))).toMatchObject({
      status: 'cancelled',
      text: 'some words',
    });
  });
});

describe.each(POLICIES)('under %s', (policy) => {
  it('a handover closes the socket, bills nobody and leaves the call to somebody else', async () => {
    const taskId = await newTask();
    const { step } = interrupted({ kind: 'reply', usage: USAGE });
    const models = createFakeModels([step, { kind: 'reply', pieces: ['an answer'], usage: USAGE }]);
    const dependencies = callDependencies(test, models, PATIENT);
    const visit = begin(taskId, dependencies, policy, { by: 'handover' });
    await visit.heard;
    visit.cancel();
    await expect(visit.outcome).rejects.toMatchObject(aborted('handover'));
    const next = createCalls(dependencies).visit(requestOf(taskId, { attempt: 2 }), contextOf());
    expect(await next).toMatchObject({ kind: 'completed' });
    expect((await rowsOf(taskId)).map((row) => [row.usageSource, row.billable])).toEqual([
      ['recounted', false],
      ['measured', true],
    ]);
  });

  it('a lease that is lost after the cancellation fences the call; the difference is booked', async () => {
    const taskId = await newTask();
    const { step } = interrupted({ kind: 'hang' });
    const dependencies = callDependencies(test, createFakeModels([step]), { leaseRenewalMs: 20 });
    const { ledger, gate } = test.stores;
    const settled = Promise.withResolvers<void>();
    // With `cancel` the socket is closed at once: there the lease is lost before the commit.
    const visit = begin(
      taskId,
      {
        ...dependencies,
        ledger: {
          ...ledger,
          settle: async (...end) => {
            await settled.promise;
            return ledger.settle(...end);
          },
        },
      },
      policy,
    );
    await visit.heard;
    visit.cancel();
    const [attempt] = await ledger.startedOfCall(callKeyOf(taskId));
    if (attempt === undefined) throw new Error('nothing is under way');
    const usage = { ...NO_USAGE, inputTokens: 3, outputTokens: 1 };
    const charge = { usage, nanoUsd: 5_000n, source: 'estimated' } as const;
    await ledger.resolve(attempt, { to: 'estimated', outcome: 'lost', charge });
    await gate.release(attempt, 'estimated', { nanoUsd: charge.nanoUsd, tokens: 4 });
    settled.resolve();
    await expect(visit.outcome).rejects.toMatchObject(aborted('fenced'));
    const rows = await rowsOf(taskId);
    expect(rows.map((row) => [row.kind, row.adjustKey, row.nanoUsd]).toSorted()).toEqual([
      ['adjust', 'late', 2_000n],
      ['estimate', '', 5_000n],
    ]);
    expect(await ledger.result(callKeyOf(taskId))).toBeUndefined();
  });

  it('a call settles when postgres comes back', async () => {
    const taskId = await newTask();
    const { step, goOn } = interrupted({ kind: 'reply', usage: USAGE });
    const { ledger } = test.stores;
    let failures = 2;
    const dependencies: CallDependencies = {
      ...callDependencies(test, createFakeModels([step])),
      isOutage: (error) => error instanceof RangeError,
      ledger: {
        ...ledger,
        settle: async (...end) => {
          if (failures > 0) {
            failures -= 1;
            throw new RangeError('postgres is away');
          }
          return ledger.settle(...end);
        },
      },
    };
    const visit = begin(taskId, dependencies, policy);
    await visit.heard;
    visit.cancel();
    goOn();
    await visit.outcome.catch(() => undefined);
    expect(failures).toBe(0);
    expect((await rowsOf(taskId)).map((row) => [row.kind, row.billable])).toEqual([['charge', true]]);
    expect(await test.stores.ledger.startedOfCall(callKeyOf(taskId))).toEqual([]);
  });

  it('a stopping process does not wait for postgres: the attempt is left to be estimated', async () => {
    const taskId = await newTask();
    const { step, goOn } = interrupted({ kind: 'reply', usage: USAGE });
    const { ledger } = test.stores;
    const dependencies: CallDependencies = {
      ...callDependencies(test, createFakeModels([step])),
      isOutage: (error) => error instanceof RangeError,
      ledger: {
        ...ledger,
        settle: async () => {
          visit.letGo.abort(new Error('the worker stops'));
          throw new RangeError('postgres is away');
        },
      },
    };
    const visit = begin(taskId, dependencies, policy);
    await visit.heard;
    visit.cancel();
    goOn();
    await expect(visit.outcome).rejects.toThrow('postgres is away');
    expect(await ledger.startedOfCall(callKeyOf(taskId))).toHaveLength(1);
  });
});

describe.each(POLICIES)('before anything was sent, under %s,', (policy) => {
  it('a cancelled call that waits for a permit ends at once and takes nothing', async () => {
    const taskId = await newTask();
    const models = createFakeModels([]);
    const dependencies = callDependencies(test, models, { inlineWaitMs: 600_000 });
    const waits = Promise.withResolvers<void>();
    const visit = begin(
      taskId,
      {
        ...dependencies,
        rates: {
          ...dependencies.rates,
          admit: async () => {
            waits.resolve();
            return { kind: 'wait', ms: 300_000, dimension: 'rpm', bucket: 'provider', isBooked: false };
          },
        },
      },
      policy,
    );
    await waits.promise;
    visit.cancel();
    await expect(visit.outcome).rejects.toThrow('the user left');
    expect(models.requests).toHaveLength(0);
    expect(await rowsOf(taskId)).toEqual([]);
    expect(await test.stores.ledger.startedOfCall(callKeyOf(taskId))).toEqual([]);
  });

  it('a cancelled call that waits for its predecessor ends at once, and the other goes on', async () => {
    const taskId = await newTask();
    const { step, goOn } = interrupted({ kind: 'reply', usage: USAGE });
    const models = createFakeModels([step]);
    const dependencies = callDependencies(test, models);
    const first = begin(taskId, dependencies, policy);
    await first.heard;
    const waits = Promise.withResolvers<void>();
    const { ledger } = test.stores;
    const second = begin(
      taskId,
      {
        ...dependencies,
        ledger: {
          ...ledger,
          startedOfCall: async (callKey) => {
            waits.resolve();
            return ledger.startedOfCall(callKey);
          },
        },
      },
      policy,
    );
    await waits.promise;
    second.cancel();
    await expect(second.outcome).rejects.toThrow('the user left');
    goOn();
    expect(await first.outcome).toMatchObject({ kind: 'completed' });
    expect(models.requests).toHaveLength(1);
  });

  it('a call that is cancelled in its last step before the request is voided', async () => {
    const taskId = await newTask();
    const models = createFakeModels([]);
    const dependencies = callDependencies(test, models);
    const { gate } = test.stores;
    const visit = begin(
      taskId,
      {
        ...dependencies,
        gate: {
          ...gate,
          markSent: async (...sent) => {
            const marked = await gate.markSent(...sent);
            visit.cancel();
            return marked;
          },
        },
      },
      policy,
    );
    await expect(visit.outcome).rejects.toMatchObject(aborted('cancelled'));
    expect(models.requests).toHaveLength(0);
    expect(await rowsOf(taskId)).toMatchObject([{ kind: 'void', nanoUsd: 0n, billable: false }]);
    expect(await test.stores.ledger.startedOfCall(callKeyOf(taskId))).toEqual([]);
  });
});

describe.each(POLICIES)('success and cancellation at once, under %s,', (policy) => {
  const replies: LanguageModels['stream'] = async () => ({
    text: 'whole',
    outputText: 'whole',
    finishReason: 'stop',
    usage: USAGE,
  });

  it.each(['the answer', 'the cancellation'])('bill once when %s is first', async (first) => {
    const taskId = await newTask();
    const { ledger } = test.stores;
    const models: LanguageModels = {
      has: () => true,
      stream: async (request) => {
        if (first === 'the cancellation') visit.cancel();
        return replies(request);
      },
    };
    const dependencies = callDependencies(test, models);
    const visit = begin(
      taskId,
      {
        ...dependencies,
        ledger: {
          ...ledger,
          settle: async (...end) => {
            visit.cancel();
            return ledger.settle(...end);
          },
        },
      },
      policy,
    );
    await visit.outcome.catch(() => undefined);
    const isCancelled = policy === 'drain' && first === 'the cancellation';
    expect(await ledger.result(callKeyOf(taskId))).toMatchObject({
      status: isCancelled ? 'cancelled' : 'completed',
    });
    expect(await rowsOf(taskId)).toMatchObject([
      { kind: 'charge', usageSource: 'measured', nanoUsd: 17_000n, billable: true },
    ]);
  });
});

describe.each(POLICIES)('an answer that comes whole in spite of a handover, under %s,', (policy) => {
  it('is kept', async () => {
    const taskId = await newTask();
    const models: LanguageModels = {
      has: () => true,
      stream: async () => {
        visit.cancel();
        return { text: 'whole', outputText: 'whole', finishReason: 'stop', usage: USAGE };
      },
    };
    const visit = begin(taskId, callDependencies(test, models), policy, { by: 'handover' });
    expect(await visit.outcome).toMatchObject({ kind: 'completed', costUsd: '0.000017' });
    expect(await rowsOf(taskId)).toMatchObject([{ kind: 'charge', usageSource: 'measured', billable: true }]);
  });
});

const PROTOCOLS = ['openai', 'openai-compatible', 'anthropic', 'google'] as const;

function modelsAt(url: string, protocol: Protocol): LanguageModels {
  const baseUrl = `${url}${protocol === 'google' ? '/v1beta' : '/v1'}`;
  return createLanguageModels({
    providers: { simulated: { protocol, apiKeys: ['k'], baseUrl, available: true } },
  });
}

const ask = (fault: object) =>
  [{ role: 'user', content: `Explain leases. [[sim:${JSON.stringify(fault)}]]` }] as const;

describe.each(PROTOCOLS)('against a provider over %s', (protocol) => {
  const slow = ask({ outputTokens: 40, tokensPerChunk: 4, chunkDelayMs: 10 });

  it('cancel closes the connection and bills what had come', async () => {
    await using provider = await startSimulatedProvider();
    const taskId = await newTask();
    const messages = ask({ outputTokens: 40, tokensPerChunk: 4, hang: { afterChunks: 3 } });
    const visit = begin(taskId, callDependencies(test, modelsAt(provider.url, protocol)), 'cancel', {
      messages,
      enough: 12,
    });
    await visit.heard;
    visit.cancel();
    await expect(visit.outcome).rejects.toMatchObject(aborted('cancelled'));
    const text = (await test.stores.ledger.result(callKeyOf(taskId)))?.text ?? '';
    const [row] = await rowsOf(taskId);
    await expect.poll(() => provider.requests()[0]).toMatchObject({ outcome: 'hung', outputTokensSent: 12 });
    expect(row).toMatchObject({ kind: 'charge', usageSource: 'recounted', billable: true });
    expect(row?.outputTokens).toBe(BigInt(text.split(' ').filter((word) => word !== '').length));
    expect(row?.outputTokens).toBeGreaterThan(1n);
    // Anthropic tells the input first of all; it is not counted again.
    if (protocol === 'anthropic')
      expect(row?.inputTokens).toBe(BigInt(provider.requests()[0]?.usage.inputTokens ?? 0));
  });

  it.each(['drain', 'detach'] as const)('%s bills what its log says, to the token', async (policy) => {
    await using provider = await startSimulatedProvider();
    const taskId = await newTask();
    const dependencies = callDependencies(test, modelsAt(provider.url, protocol));
    const visit = begin(taskId, dependencies, policy, { messages: slow });
    await visit.heard;
    visit.cancel();
    const outcome = await visit.outcome.catch((error: unknown) => error);
    expect(outcome).toMatchObject(policy === 'drain' ? aborted('cancelled') : { kind: 'completed' });
    const [entry] = provider.requests();
    expect(entry).toMatchObject({ outcome: 'completed', outputTokensSent: 40 });
    const rows = await rowsOf(taskId);
    expect(rows).toMatchObject([
      { kind: 'charge', usageSource: 'measured', outputTokens: 40n, billable: true },
    ]);
    const result = await test.stores.ledger.result(callKeyOf(taskId));
    expect(result && totalInputTokens(result.usage)).toBe(entry?.usage.inputTokens);
    expect(result?.status).toBe(policy === 'drain' ? 'cancelled' : 'completed');
    expect(await textForReaders(taskId)).toBe(result?.text);
  });
});

describe('a count along the way', () => {
  const start = {
    type: 'message_start',
    message: {
      id: 'm',
      type: 'message',
      role: 'assistant',
      model: 'small',
      content: [],
      stop_reason: null,
      stop_sequence: null,
      usage: { input_tokens: 25, output_tokens: 1 },
    },
  } as const;
  const block = { type: 'content_block_start', index: 0, content_block: { type: 'text', text: '' } } as const;
  const words = (text: string) =>
    ({ type: 'content_block_delta', index: 0, delta: { type: 'text_delta', text } }) as const;
  const count = (output_tokens: number) =>
    ({
      type: 'message_delta',
      delta: { stop_reason: null, stop_sequence: null },
      usage: { output_tokens },
    }) as const;

  it.each([
    ['is taken where nothing came after it', [words('one two three'), count(11)], 'measured', 11n],
    ['is taken where it is zero', [words('one two three'), count(0)], 'measured', 0n],
    ['gives way to the text where more had come', [count(2), words('one two three')], 'recounted', 3n],
    ['is no placeholder from before the text', [words('one two three')], 'recounted', 3n],
  ] as const)('%s', async (_title, events, source, outputTokens) => {
    const gate = Promise.withResolvers<void>();
    await using wire = await startWire((response) => {
      response.writeHead(200, { 'content-type': 'text/event-stream' });
      response.write(anthropicSse(start, block, ...events));
      void gate.promise.then(() => response.end());
    });
    const taskId = await newTask();
    const visit = begin(taskId, callDependencies(test, modelsAt(wire.url, 'anthropic')), 'drain');
    await visit.heard;
    visit.cancel();
    // The stream is cut, so that all of it has been read.
    gate.resolve();
    await expect(visit.outcome).rejects.toMatchObject(aborted('cancelled'));
    expect(await rowsOf(taskId)).toMatchObject([
      { kind: 'charge', usageSource: source, inputTokens: 25n, outputTokens, billable: true },
    ]);
  });
});

describe('a clamped call', () => {
  it('is sent with the output that was held for', async () => {
    const taskId = await newTask();
    const models = createFakeModels([{ kind: 'reply', pieces: ['x'], usage: USAGE }]);
    const dependencies = callDependencies(test, models);
    const { gate } = test.stores;
    const smaller = { maxOutputTokens: 12, inputTokens: 50, tokens: 62, nanoUsd: 74_000n };
    await createCalls({
      ...dependencies,
      gate: {
        ...gate,
        hold: async (hold, limits) => {
          const held = await gate.hold({ ...hold, estimate: smaller }, limits);
          return held;
        },
      },
    }).visit(requestOf(taskId), contextOf());
    expect(models.requests).toMatchObject([{ model: MODEL, maxOutputTokens: 12 }]);
  });
});
