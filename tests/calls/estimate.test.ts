import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { CallDependencies } from '../../src/calls/call.ts';
import {
  clampEstimate,
  countMessages,
  estimateCall,
  estimateExactly,
  estimateLost,
  priceHashOf,
  pricesOf,
  priceUsage,
} from '../../src/calls/estimate.ts';
import { loadConfig } from '../../src/config.ts';
import { countInputTokens, estimateInputTokens } from '../../src/llm/count.ts';
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

  describe('at a price that rises above 200,000 input tokens', () => {
    const tier = { inputTokens: 200_000, input: 2_000_000_000n, output: 5_000_000_000n };
    const catalog = catalogOf([{ ...PRICE, above: [tier] }]);
    const at = (inputTokens: number, prices = catalog) => {
      const tokens = { ...dependenciesOf().tokens, upperBound: () => inputTokens };
      const dependencies = dependenciesOf({ catalog: prices, tokens });
      const hold = estimateCall(dependencies, request, Date.now())?.nanoUsd ?? -1n;
      const settle = (usage: Partial<Usage>) =>
        priceUsage(dependencies, { model: MODEL, heldAt: new Date() }, { ...NO_USAGE, ...usage });
      return { hold, settle };
    };

    it.each([
      ['200,000 input tokens take the base price', 200_000, 200_000n * 1_000n + 100n * 2_000n],
      ['200,001 input tokens take the price above, all of them', 200_001, 200_001n * 2_000n + 100n * 5_000n],
    ])('%s, in the hold and in the settlement', (_title, inputTokens, cost) => {
      const { hold, settle } = at(inputTokens);
      expect(hold).toBe(cost);
      expect(settle({ inputTokens, outputTokens: 100 })).toBe(cost);
      expect(settle({ inputTokens: 1, cacheReadTokens: inputTokens - 1, outputTokens: 100 })).toBe(cost);
    });

    it('holds at the price above while the true count is below, and settles at the base price', () => {
      const { hold, settle } = at(260_000);
      expect(hold).toBe(260_000n * 2_000n + 100n * 5_000n);
      expect(settle({ inputTokens: 190_000, outputTokens: 100 })).toBe(190_000n * 1_000n + 100n * 2_000n);
    });

    it('never holds less than a true count below it can cost, where long inputs are cheaper', () => {
      const cheaper = catalogOf([
        { ...PRICE, above: [{ inputTokens: 200_000, input: 100_000_000n, output: 200_000_000n }] },
      ]);
      const { hold, settle } = at(200_001, cheaper);
      expect(hold).toBe(settle({ inputTokens: 200_000, outputTokens: 100 }));
      expect(hold).toBeGreaterThan(settle({ inputTokens: 200_001, outputTokens: 100 }));
    });
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

describe('estimateExactly', () => {
  const text = 'A lease is a promise that ends by itself. '.repeat(200);
  const long = { ...request, messages: [{ role: 'user', content: text }] } as const;

  it('is below the bound by bytes and not below the count, at the same prices', async () => {
    const dependencies = dependenciesOf();
    const exact = await estimateExactly(dependencies, long, Date.now());
    const inputTokens = await countInputTokens(MODEL, long.messages);
    expect(exact).toEqual({
      inputTokens,
      maxOutputTokens: 100,
      tokens: inputTokens + 100,
      nanoUsd: BigInt(inputTokens) * 1_000n + 100n * 2_000n,
    });
    const bound = estimateCall(dependencies, long, Date.now());
    expect(inputTokens).toBeLessThan((bound?.inputTokens ?? 0) / 2);
  });

  it('knows no price where the first estimate knew none', async () => {
    const unknown = { ...long, model: 'nobody/knows' };
    expect(await estimateExactly(dependenciesOf(), unknown, Date.now())).toBeUndefined();
  });
});

describe('clampEstimate', () => {
  const estimate = { inputTokens: 50, maxOutputTokens: 100, tokens: 150, nanoUsd: 250_000n };
  const clamp = (
    room: Parameters<typeof clampEstimate>[3],
    change: Partial<CallDependencies> = {},
    from = estimate,
  ) => clampEstimate(dependenciesOf(change), from, request, room, Date.now());

  it('answers the largest output that fits, to the last token', () => {
    // 50 tokens in are 50,000 nano-USD, each token out 2,000.
    expect(clamp({ nanoUsd: 249_999n })).toEqual({
      inputTokens: 50,
      maxOutputTokens: 99,
      tokens: 149,
      nanoUsd: 248_000n,
    });
    expect(clamp({ nanoUsd: 52_000n })?.maxOutputTokens).toBe(1);
    expect(clamp({ tokens: 149 })?.maxOutputTokens).toBe(99);
    expect(clamp({ tokens: 51 })?.maxOutputTokens).toBe(1);
  });

  it('takes the tighter of two rooms', () => {
    expect(clamp({ nanoUsd: 70_000n, tokens: 149 })?.maxOutputTokens).toBe(10);
    expect(clamp({ nanoUsd: 249_999n, tokens: 55 })?.maxOutputTokens).toBe(5);
  });

  it('leaves an estimate that fits as it is, and never makes it larger', () => {
    expect(clamp({ nanoUsd: 250_000n, tokens: 150 })).toEqual(estimate);
    expect(clamp({ nanoUsd: 1n << 60n })).toEqual(estimate);
    expect(clamp({})).toEqual(estimate);
  });

  it('answers nothing when not even one token fits', () => {
    expect(clamp({ nanoUsd: 51_999n })).toBeUndefined();
    expect(clamp({ tokens: 50 })).toBeUndefined();
    expect(clamp({ tokens: -1 })).toBeUndefined();
    expect(clamp({ nanoUsd: 0n })).toBeUndefined();
  });

  it('clamps to nothing where the price is not known', () => {
    expect(clamp({}, { catalog: catalogOf([]) })).toBeUndefined();
  });

  it('follows the tier of the input and the rounding of the settlement', () => {
    const above = [{ inputTokens: 200_000, input: 2_000_000_000n, output: 3_333_333n }];
    const catalog = catalogOf([{ ...PRICE, output: 1_111_111n, above }]);
    for (const inputTokens of [200_000, 200_001]) {
      const dependencies = dependenciesOf({ catalog });
      const cost = (outputTokens: number) =>
        priceUsage(
          dependencies,
          { model: MODEL, heldAt: new Date() },
          { ...NO_USAGE, inputTokens, outputTokens },
        );
      const from = { inputTokens, maxOutputTokens: 5_000, tokens: inputTokens + 5_000, nanoUsd: cost(5_000) };
      for (const room of [cost(0) + 4n, cost(0) + 17n, cost(1_000), cost(4_999)]) {
        const fitting = clamp({ nanoUsd: room }, { catalog }, from)?.maxOutputTokens ?? 0;
        expect(fitting).toBeGreaterThan(0);
        expect(cost(fitting)).toBeLessThanOrEqual(room);
        expect(cost(fitting + 1)).toBeGreaterThan(room);
      }
    }
  });

  it('clamps any output where output is free', () => {
    const catalog = catalogOf([{ ...PRICE, output: 0n }]);
    expect(clamp({ nanoUsd: 50_000n }, { catalog })?.maxOutputTokens).toBe(100);
    expect(clamp({ nanoUsd: 49_999n }, { catalog })).toBeUndefined();
  });
});

describe('the price of a model that has none', () => {
  const CEILING = { input: 15_000_000_000n, output: 75_000_000_000n };
  const counted: string[] = [];
  const warned: unknown[] = [];
  const unpriced = (unknownPrice: CallDependencies['settings']['unknownPrice']) => {
    const made = dependenciesOf({ catalog: catalogOf([{ ...PRICE, validFromMs: 1_000 }]) });
    return {
      ...made,
      settings: { ...made.settings, unknownPrice, ceiling: CEILING },
      meter: { ...made.meter, priceUnknown: (provider: string) => void counted.push(provider) },
      log: { ...made.log, warn: (message: string, fields?: object) => void warned.push([message, fields]) },
    };
  };
  const attempt = { model: MODEL, heldAt: new Date(999) };
  const usage = { ...NO_USAGE, inputTokens: 2, cacheReadTokens: 3, outputTokens: 4 };

  it.each(['ceiling', 'flag'] as const)('is the ceiling in hold and settlement alike under %s', (policy) => {
    const dependencies = unpriced(policy);
    const estimate = estimateCall(dependencies, request, 999);
    const inputTokens = estimateInputTokens(MESSAGES);
    expect(estimate?.nanoUsd).toBe(BigInt(inputTokens) * 15_000n + 100n * 75_000n);
    expect(priceUsage(dependencies, attempt, usage)).toBe(5n * 15_000n + 4n * 75_000n);
    if (estimate === undefined) throw new Error('no estimate');
    const room = { nanoUsd: estimate.nanoUsd - 1n };
    expect(clampEstimate(dependencies, estimate, request, room, 999)?.maxOutputTokens).toBe(99);
  });

  it('is refused by default, in hold and settlement alike', () => {
    expect(estimateCall(unpriced('refuse'), request, 999)).toBeUndefined();
    expect(() => priceUsage(unpriced('refuse'), attempt, usage)).toThrow('no price of');
  });

  it('marks the rows of an attempt, and only of such a one', () => {
    expect(priceHashOf(unpriced('ceiling'), MODEL, 999)).toBe('unknown:hash');
    expect(priceHashOf(unpriced('flag'), MODEL, 999)).toBe('unknown:hash');
    expect(priceHashOf(unpriced('flag'), MODEL, 1_000)).toBe('hash');
    expect(pricesOf(unpriced('flag'), MODEL, 1_000)).toMatchObject({ isKnown: true });
  });

  it('is counted under every policy, and warned of where it is flagged', () => {
    for (const policy of ['refuse', 'ceiling', 'flag'] as const) {
      counted.length = 0;
      warned.length = 0;
      estimateCall(unpriced(policy), request, 999);
      expect(counted).toEqual(['simulated']);
      expect(warned).toHaveLength(policy === 'flag' ? 1 : 0);
      estimateCall(unpriced(policy), request, 1_000);
      expect(counted).toHaveLength(1);
    }
  });

  it('books a lost attempt at the ceiling only where it was held at one', async () => {
    const dependencies = unpriced('ceiling');
    const heldAt = new Date(999);
    const dear = { ...lostAttempt().estimate, nanoUsd: 1n << 40n };
    const held = lostAttempt({ heldAt, estimate: dear, priceHash: 'unknown:hash' });
    expect((await estimateLost(dependencies, held, 30)).nanoUsd).toBe(5n * 15_000n + 30n * 75_000n);
    const elsewhere = lostAttempt({ heldAt, estimate: dear, priceHash: 'newer' });
    expect((await estimateLost(dependencies, elsewhere, 30)).nanoUsd).toBe(1n << 40n);
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
