import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { CallDependencies } from '../../src/calls/call.ts';
import { countMessages, estimateCall, estimateLost, priceUsage } from '../../src/calls/estimate.ts';
import { loadConfig } from '../../src/config.ts';
import { estimateInputTokens } from '../../src/llm/count.ts';
import type { Attempt } from '../../src/stores/ledger.ts';
import type { Message } from '../../src/task/message.ts';
import type { PriceEntry } from '../../src/task/price.ts';
import { NO_USAGE, totalInputTokens, type Usage } from '../../src/task/usage.ts';
import { callDependencies, MODEL, PRICE } from '../support/calls.ts';
import { createFakeModels } from '../support/fake-models.ts';
import { attemptOf } from '../support/holds.ts';
import { openTestStores, type TestStores } from '../support/stores.ts';

const MESSAGES: readonly Message[] = [
  { role: 'system', content: 'one two ' },
  {
    role: 'user',
    content: [
      { type: 'text', text: 'three ' },
      { type: 'text', text: 'four five' },
    ],
  },
];

let test: TestStores;

function dependenciesOf(
  change: Partial<CallDependencies> = {},
  policy: CallDependencies['settings']['estimatePolicy'] = 'charge_estimate',
) {
  const made = callDependencies(test, createFakeModels([]), { estimatePolicy: policy });
  return { ...made, messagesOf: async () => MESSAGES, ...change };
}

const catalogOf = (prices: readonly PriceEntry[]): CallDependencies['catalog'] => ({
  priceHash: 'hash',
  modelOf: () => ({ maxOutputTokens: 1_000, prices }),
});

const request = { model: MODEL, messages: MESSAGES, maxOutputTokens: 100 };

/** Held at a dollar per million tokens in, two out: 50 tokens in, 100 out. */
function lostAttempt(change: Partial<Attempt> = {}): Attempt {
  const estimate = { nanoUsd: 250_000n, tokens: 150, inputTokens: 50, maxOutputTokens: 100 };
  const payer = { tenantId: 'tenant', userId: 'user', taskId: 'task' };
  return {
    ...attemptOf({ attemptKey: 'task:run:answer:1#0.1.1.0', payer, estimate, limits: [] }, Date.now()),
    ...change,
  };
}

beforeAll(async () => {
  test = await openTestStores();
});

afterAll(() => test[Symbol.asyncDispose]());

describe('estimateCall', () => {
  it('takes every input token as fresh and every output token as used', () => {
    const inputTokens = estimateInputTokens(MESSAGES);
    expect(estimateCall(dependenciesOf(), request, Date.now())).toEqual({
      inputTokens,
      maxOutputTokens: 100,
      tokens: inputTokens + 100,
      nanoUsd: BigInt(inputTokens) * 1_000n + 100n * 2_000n,
    });
  });

  it('counts a schema that the answer must match', () => {
    const schema = { type: 'json_schema', schema: { type: 'object' } } as const;
    const plain = estimateCall(dependenciesOf(), request, Date.now());
    const bound = estimateCall(dependenciesOf(), { ...request, responseFormat: schema }, Date.now());
    expect(bound?.inputTokens).toBe(estimateInputTokens(MESSAGES, schema));
    expect(bound?.inputTokens).toBeGreaterThan(plain?.inputTokens ?? Number.POSITIVE_INFINITY);
  });

  it('takes the dearest way to send the input, where writing a cache costs more than fresh input', () => {
    const catalog = catalogOf([{ ...PRICE, cacheWrite5m: 1_250_000_000n, cacheWrite1h: 2_000_000_000n }]);
    const estimate = estimateCall(dependenciesOf({ catalog }), request, Date.now());
    expect(estimate?.nanoUsd).toBe(BigInt(estimateInputTokens(MESSAGES)) * 2_000n + 200_000n);
  });

  it('knows no price of an unknown model, of one without prices, and before the first price holds', () => {
    expect(estimateCall(dependenciesOf(), { ...request, model: 'nobody/knows' }, Date.now())).toBeUndefined();
    expect(estimateCall(dependenciesOf({ catalog: catalogOf([]) }), request, Date.now())).toBeUndefined();
    const catalog = catalogOf([{ ...PRICE, validFromMs: 1_000 }]);
    expect(estimateCall(dependenciesOf({ catalog }), request, 999)).toBeUndefined();
    expect(estimateCall(dependenciesOf({ catalog }), request, 1_000)).toBeDefined();
  });

  it('takes a price of zero as a price', () => {
    const free = { ...PRICE, input: 0n, cachedInput: 0n, cacheWrite5m: 0n, cacheWrite1h: 0n, output: 0n };
    expect(estimateCall(dependenciesOf({ catalog: catalogOf([free]) }), request, Date.now())?.nanoUsd).toBe(
      0n,
    );
  });

  it('bounds, for every shipped model, what any usage within its tokens can cost', () => {
    const { models } = loadConfig({ env: {} });
    const catalog: CallDependencies['catalog'] = { priceHash: 'hash', modelOf: (id) => models[id] };
    expect(Object.keys(models).length).toBeGreaterThan(3);
    for (const model of Object.keys(models))
      for (const size of [10, 5_000, 199_000, 250_000, 900_000]) {
        const messages: Message[] = [{ role: 'user', content: 'x'.repeat(size) }];
        const dependencies = dependenciesOf({ catalog });
        const estimate = estimateCall(dependencies, { model, messages, maxOutputTokens: 4_096 }, Date.now());
        if (estimate === undefined) throw new Error(`${model} has no price`);
        for (const usage of usagesWithin(estimate.inputTokens, 4_096)) {
          expect(totalInputTokens(usage)).toBeLessThanOrEqual(estimate.inputTokens);
          expect(priceUsage(dependencies, { model, heldAt: new Date() }, usage)).toBeLessThanOrEqual(
            estimate.nanoUsd,
          );
        }
      }
  });
});

/** Corners and mixtures of the buckets that a provider may report. */
function usagesWithin(inputTokens: number, outputTokens: number): Usage[] {
  const half = Math.floor(inputTokens / 2);
  const quarter = Math.floor(inputTokens / 4);
  return [
    NO_USAGE,
    { ...NO_USAGE, inputTokens, outputTokens },
    { ...NO_USAGE, cacheReadTokens: inputTokens, outputTokens, reasoningTokens: outputTokens },
    { ...NO_USAGE, cacheWrite5mTokens: inputTokens, outputTokens },
    { ...NO_USAGE, cacheWrite1hTokens: inputTokens, outputTokens },
    { ...NO_USAGE, inputTokens: half, cacheReadTokens: half, outputTokens },
    {
      ...NO_USAGE,
      inputTokens: quarter,
      cacheReadTokens: quarter,
      cacheWrite5mTokens: quarter,
      cacheWrite1hTokens: quarter,
      outputTokens,
    },
  ];
}

describe('priceUsage', () => {
  it('prices at what held when the attempt was held, not now', () => {
    const catalog = catalogOf([PRICE, { ...PRICE, validFromMs: 5_000, input: 9_000_000_000n }]);
    const price = (atMs: number) =>
      priceUsage(
        dependenciesOf({ catalog }),
        { model: MODEL, heldAt: new Date(atMs) },
        { ...NO_USAGE, inputTokens: 10 },
      );
    expect(price(4_999)).toBe(10_000n);
    expect(price(5_000)).toBe(90_000n);
  });

  it('throws rather than to price an unknown model at nothing', () => {
    expect(() =>
      priceUsage(dependenciesOf(), { model: 'nobody/knows', heldAt: new Date() }, NO_USAGE),
    ).toThrow('no price of nobody/knows');
  });
});

describe('estimateLost', () => {
  it('books the counted input and the output that was seen', async () => {
    expect(await estimateLost(dependenciesOf(), lostAttempt(), 30)).toEqual({
      usage: { ...NO_USAGE, inputTokens: 5, outputTokens: 30 },
      nanoUsd: 5n * 1_000n + 30n * 2_000n,
      source: 'estimated',
    });
  });

  it('books the largest output before a model has answered, then its usual one', async () => {
    expect((await estimateLost(dependenciesOf(), lostAttempt(), 0)).usage.outputTokens).toBe(100);
    const { ledger } = test.stores;
    const usual = { ...dependenciesOf(), ledger: { ...ledger, medianOutputTokens: async () => 12 } };
    expect((await estimateLost(usual, lostAttempt(), 0)).usage.outputTokens).toBe(12);
    expect((await estimateLost(usual, lostAttempt(), 3)).usage.outputTokens).toBe(3);
    const nothing = { ...dependenciesOf(), ledger: { ...ledger, medianOutputTokens: async () => 0 } };
    expect((await estimateLost(nothing, lostAttempt(), 0)).usage.outputTokens).toBe(0);
  });

  it('never books more than was held', async () => {
    const charge = await estimateLost(
      dependenciesOf({ messagesOf: async () => [{ role: 'user', content: 'word '.repeat(500) }] }),
      lostAttempt(),
      9_999,
    );
    expect(charge).toMatchObject({ usage: { inputTokens: 50, outputTokens: 100 }, nanoUsd: 250_000n });
    const cheap = lostAttempt({ estimate: { ...lostAttempt().estimate, nanoUsd: 7n } });
    expect((await estimateLost(dependenciesOf(), cheap, 30)).nanoUsd).toBe(7n);
  });

  it('takes the bound of the hold where the conversation is gone', async () => {
    const charge = await estimateLost(
      dependenciesOf({ messagesOf: async () => undefined }),
      lostAttempt(),
      1,
    );
    expect(charge.usage.inputTokens).toBe(50);
  });

  it('books the hold where nobody here knows the price', async () => {
    const charge = await estimateLost(dependenciesOf(), lostAttempt({ model: 'nobody/knows' }), 1);
    expect(charge).toMatchObject({ nanoUsd: 250_000n, source: 'estimated' });
  });

  it.each([
    ['charge_max', { inputTokens: 50, outputTokens: 100 }, 250_000n],
    ['charge_input', { inputTokens: 5, outputTokens: 0 }, 5_000n],
  ] as const)('follows the policy %s', async (policy, usage, nanoUsd) => {
    expect(await estimateLost(dependenciesOf({}, policy), lostAttempt(), 30)).toMatchObject({
      usage,
      nanoUsd,
    });
  });
});

describe('countMessages', () => {
  it('counts every part of every message', async () => {
    expect(await countMessages(dependenciesOf(), MESSAGES)).toBe(5);
  });
});
