import { describe, expect, it } from 'vitest';
import { stringify } from 'yaml';
import type { Config } from '../../src/config.ts';
import { costNanoUsd, priceAt } from '../../src/task/price.ts';
import { faultsOf, folderWith, load } from './overlay.ts';

const withModels = (value: unknown): Config => load({ files: { 'models.yaml': stringify(value) } });
const faultsWith = (value: unknown) => faultsOf({ files: { 'models.yaml': stringify(value) } });

const MODEL = {
  tier: 'small',
  contextWindow: 1_000,
  maxOutputTokens: 100,
  capabilities: ['tools'],
  prices: [{ validFrom: '2026-01-01', input: 0.25, output: '2.00' }],
};

const NOTHING = { cacheReadTokens: 0, cacheWrite5mTokens: 0, cacheWrite1hTokens: 0 };

describe('the shipped models.yaml', () => {
  it('has tiers that end with a simulated model, each with a price today', () => {
    const { tiers, models } = load();
    for (const tier of ['small', 'medium', 'large'] as const) {
      expect(tiers[tier].at(-1)).toBe(`simulated/${tier}`);
      for (const id of tiers[tier]) expect([id, models[id]?.tier]).toEqual([id, tier]);
    }
    for (const model of Object.values(models)) {
      const price = priceAt(model.prices, Date.now());
      expect([model.id, (price?.input ?? 0n) > 0n, (price?.output ?? 0n) > 0n]).toEqual([
        model.id,
        true,
        true,
      ]);
    }
  });

  it('prices 200,000 and 200,001 input tokens of a model with a row above', () => {
    const [price] = load().models['google/gemini-2.5-pro']?.prices ?? [];
    if (price === undefined) throw new Error('no price');
    const usage = { ...NOTHING, inputTokens: 200_000, outputTokens: 1_000 };
    expect(costNanoUsd(price, usage)).toBe(260_000_000n);
    expect(costNanoUsd(price, { ...usage, inputTokens: 200_001 })).toBe(515_002_500n);
  });

  it('makes no provider available without a variable', () => {
    expect(Object.values(load().providers).map((provider) => provider.available)).toEqual([
      false,
      false,
      false,
      false,
    ]);
  });
});

describe('providers', () => {
  it('are available by their key, or by their address where they need no key', () => {
    const { providers } = load({
      env: {
        OPENAI_API_KEY: 'sk',
        SIMULATED_BASE_URL: 'http://127.0.0.1:1/v1',
        ANTHROPIC_BASE_URL: 'http://a',
      },
    });
    expect({ ...providers }).toEqual({
      openai: { protocol: 'openai', apiKey: 'sk', available: true },
      anthropic: { protocol: 'anthropic', baseUrl: 'http://a', available: false },
      google: { protocol: 'google', available: false },
      simulated: { protocol: 'openai-compatible', baseUrl: 'http://127.0.0.1:1/v1', available: true },
    });
  });

  it('may have their address in the file, below the environment', () => {
    const own = { protocol: 'openai-compatible', baseUrlEnv: 'OWN_URL', baseUrl: 'http://file/v1' };
    const files = { 'models.yaml': stringify({ providers: { own } }) };
    expect(load({ files }).providers['own']).toMatchObject({ baseUrl: 'http://file/v1', available: true });
    expect(load({ files, env: { OWN_URL: 'https://env/v1' } }).providers['own']).toMatchObject({
      baseUrl: 'https://env/v1',
    });
  });

  it('that are compatible are not available without an address, whatever their key', () => {
    const own = { protocol: 'openai-compatible', apiKeyEnv: 'OWN_KEY', baseUrlEnv: 'OWN_URL' };
    const files = { 'models.yaml': stringify({ providers: { own } }) };
    expect(load({ files, env: { OWN_KEY: 'k' } }).providers['own']?.available).toBe(false);
    expect(load({ files, env: { OWN_KEY: 'k', OWN_URL: 'http://h' } }).providers['own']?.available).toBe(
      true,
    );
    expect(load({ files, env: { OWN_URL: 'http://h' } }).providers['own']?.available).toBe(false);
  });

  it('of names that objects inherit do not exist', () => {
    const { providers, models, limits } = load();
    expect([providers['constructor'], models['toString'], limits.rates.providers['valueOf']]).toEqual([
      undefined,
      undefined,
      undefined,
    ]);
  });

  it.each(['nowhere', 'ftp://h', 'http://', 'http://a b'])('refuse the address %j', (address) => {
    expect(faultsOf({ env: { OPENAI_BASE_URL: address } })).toEqual([
      {
        key: 'providers.openai.baseUrl',
        expected: 'an http:// or https:// URL',
        got: 'a text (not shown)',
        source: 'environment OPENAI_BASE_URL',
      },
    ]);
  });
});

describe('an overlay of models.yaml', () => {
  it('adds a model and keeps the others', () => {
    const { models, tiers } = withModels({ models: { 'openai/new-1': MODEL } });
    expect(models['openai/new-1']).toEqual({
      id: 'openai/new-1',
      provider: 'openai',
      name: 'new-1',
      tier: 'small',
      contextWindow: 1_000,
      maxOutputTokens: 100,
      capabilities: ['tools'],
      prices: [
        {
          validFromMs: Date.UTC(2026, 0, 1),
          input: 250_000_000n,
          cachedInput: 250_000_000n,
          cacheWrite5m: 250_000_000n,
          cacheWrite1h: 250_000_000n,
          output: 2_000_000_000n,
          above: [],
        },
      ],
    });
    expect(Object.keys(models)).toHaveLength(Object.keys(load().models).length + 1);
    expect(tiers).toEqual(load().tiers);
  });

  it('changes one key of a model, replaces lists as a whole, and may name models with slashes', () => {
    const shipped = load().models['openai/gpt-5'];
    const { models, tiers } = withModels({
      models: { 'openai/gpt-5': { maxOutputTokens: 7 }, 'openai/ft:a/b@1': MODEL },
      tiers: { small: ['simulated/small'] },
    });
    expect(models['openai/gpt-5']).toEqual({ ...shipped, maxOutputTokens: 7 });
    expect(models['openai/ft:a/b@1']).toMatchObject({ provider: 'openai', name: 'ft:a/b@1' });
    expect(tiers.small).toEqual(['simulated/small']);
    expect(tiers.large).toEqual(load().tiers.large);
  });

  it('removes a model by null, but no section', () => {
    const { models } = withModels({ models: { 'simulated/reasoner': null } });
    expect(models['simulated/reasoner']).toBeUndefined();
    expect(Object.keys(models)).toHaveLength(Object.keys(load().models).length - 1);
    expect(load({ files: { 'models.yaml': 'models:\n  # nothing yet\n' } }).models).toEqual(load().models);
  });

  it('that removes a model which a tier names is refused', () => {
    expect(faultsWith({ models: { 'openai/gpt-5': null } })).toEqual([
      {
        key: 'tiers.large',
        expected: 'models that stand under models',
        got: '"openai/gpt-5"',
        source: expect.stringMatching(/^models\.yaml:\d+$/),
      },
    ]);
  });

  it('orders prices and rows by themselves, and tells a moment from a date', () => {
    const price = { input: 1, output: 2 };
    const above = [
      { inputTokens: 20, ...price },
      { inputTokens: 10, cachedInput: 0, ...price },
    ];
    const { models } = withModels({
      models: {
        'openai/new': {
          ...MODEL,
          prices: [
            { validFrom: '2026-03-01T01:00:00+01:00', above, ...price },
            { validFrom: '2025-01-01', ...price },
          ],
        },
      },
    });
    const prices = models['openai/new']?.prices ?? [];
    expect(prices.map((entry) => entry.validFromMs)).toEqual([Date.UTC(2025, 0, 1), Date.UTC(2026, 2, 1)]);
    expect(prices[1]?.above).toEqual([
      { inputTokens: 10, input: 1_000_000_000n, output: 2_000_000_000n, cachedInput: 0n },
      { inputTokens: 20, input: 1_000_000_000n, output: 2_000_000_000n },
    ]);
  });

  it('takes a model without prices as one whose price is not known', () => {
    const { prices: _, ...unpriced } = MODEL;
    expect(withModels({ models: { 'openai/new': unpriced } }).models['openai/new']?.prices).toEqual([]);
  });
});

describe('modelsHash', () => {
  it('changes with a price and a model, and with nothing else', () => {
    const { modelsHash } = load();
    expect(modelsHash).toMatch(/^[0-9a-f]{16}$/);
    const hashOf = (models: unknown) => withModels({ models }).modelsHash;
    expect(hashOf({ 'openai/gpt-5': { tier: 'large' } })).toBe(modelsHash);
    expect(load({ env: { OPENAI_API_KEY: 'k' } }).modelsHash).toBe(modelsHash);
    const price = (input: string) =>
      hashOf({ 'openai/gpt-5': { prices: [{ validFrom: '2026-01-01', input, output: '1' }] } });
    expect(
      new Set([modelsHash, price('1'), price('1.000000001'), hashOf({ 'openai/new': MODEL })]).size,
    ).toBe(4);
    expect(price('1')).toBe(price('1.00'));
  });

  it('does not depend on the order of lines', () => {
    const [first, second] = [{ 'openai/a': MODEL }, { 'openai/b': MODEL }];
    expect(withModels({ models: { ...first, ...second } }).modelsHash).toBe(
      withModels({ models: { ...second, ...first } }).modelsHash,
    );
  });
});

describe('a faulty models.yaml', () => {
  const model = (change: object) => ({ models: { 'openai/new': { ...MODEL, ...change } } });
  const price = (change: object) =>
    model({ prices: [{ validFrom: '2026-01-01', input: 1, output: 2, ...change }] });
  const provider = (change: object) => ({
    providers: { own: { protocol: 'openai', apiKeyEnv: 'OWN_KEY', ...change } },
  });
  const PRICE = 'a price in USD per million tokens from 0 to 1000000 with at most 9 decimals';
  const MOMENT = 'a date such as 2026-01-31, or a time such as 2026-01-31T12:00:00Z';
  const VARIABLE = "the name of an environment variable (A-Z 0-9 _) that is not one of Weir's own";

  it.each<[string, unknown, string, string, string]>([
    ['an unknown section', { model: {} }, 'model', 'no such key', 'a map'],
    ['an unknown key', model({ context: 1 }), 'models.openai/new.context', 'no such key', 'a number'],
    [
      'a model without its context',
      model({ contextWindow: undefined }),
      'models.openai/new.contextWindow',
      'a whole number from 1 to 100000000',
      'nothing',
    ],
    ['a model that is no map', { models: { 'openai/new': 5 } }, 'models.openai/new', 'a map', '5'],
    [
      'a negative number',
      model({ maxOutputTokens: -5 }),
      'models.openai/new.maxOutputTokens',
      'a whole number from 1 to 10000000',
      '-5',
    ],
    [
      'more output than context',
      model({ maxOutputTokens: 1_001 }),
      'models.openai/new.maxOutputTokens',
      'at most contextWindow (1000)',
      '1001',
    ],
    [
      'an unknown tier',
      model({ tier: 'huge' }),
      'models.openai/new.tier',
      'one of small, medium, large',
      '"huge"',
    ],
    [
      'an unknown capability',
      model({ capabilities: ['tools', 'magic'] }),
      'models.openai/new.capabilities[1]',
      /^one of tools, json/,
      '"magic"',
    ],
    [
      'capabilities that are no list',
      model({ capabilities: 'tools' }),
      'models.openai/new.capabilities',
      'a list',
      '"tools"',
    ],
    [
      'a name without a provider',
      { models: { new: MODEL } },
      'models.new',
      'a model as provider/model',
      'this key',
    ],
    [
      'a name with a brace',
      { models: { 'openai/{t}': MODEL } },
      'models.openai/{t}',
      'a model as provider/model',
      'this key',
    ],
    [
      'a provider that is none',
      { models: { 'nobody/new': MODEL } },
      'models.nobody/new',
      /^a provider out of openai, /,
      '"nobody"',
    ],
    [
      'a price that is text',
      price({ input: '12abc' }),
      'models.openai/new.prices[0].input',
      PRICE,
      '"12abc"',
    ],
    ['a negative price', price({ output: -1 }), 'models.openai/new.prices[0].output', PRICE, '-1'],
    ['an absurd price', price({ output: 1_000_001 }), 'models.openai/new.prices[0].output', PRICE, '1000001'],
    [
      'a price too fine',
      price({ cachedInput: '0.0000000001' }),
      'models.openai/new.prices[0].cachedInput',
      PRICE,
      '"0.0000000001"',
    ],
    ['a price left out', price({ input: undefined }), 'models.openai/new.prices[0].input', PRICE, 'nothing'],
    [
      'an unknown price',
      price({ cached: 1 }),
      'models.openai/new.prices[0].cached',
      'no such key',
      'a number',
    ],
    [
      'a date of no calendar',
      price({ validFrom: '2026-02-30' }),
      'models.openai/new.prices[0].validFrom',
      MOMENT,
      '"2026-02-30"',
    ],
    [
      'a time without a zone',
      price({ validFrom: '2026-01-01T00:00' }),
      'models.openai/new.prices[0].validFrom',
      MOMENT,
      '"2026-01-01T00:00"',
    ],
    ['no date', price({ validFrom: 2026 }), 'models.openai/new.prices[0].validFrom', MOMENT, '2026'],
    [
      'a row above nothing',
      price({ above: [{ inputTokens: 0, input: 1, output: 1 }] }),
      'models.openai/new.prices[0].above[0].inputTokens',
      'a whole number from 1 to 100000000',
      '0',
    ],
    [
      'two prices of one day',
      model({ prices: [MODEL.prices[0], MODEL.prices[0]] }),
      'models.openai/new.prices',
      'one entry for each validFrom',
      'several',
    ],
    [
      'two rows above one number',
      price({ above: [1, 2].map((input) => ({ inputTokens: 5, input, output: 1 })) }),
      'models.openai/new.prices',
      'one row of above for each inputTokens',
      'several',
    ],
    ['an empty tier', { tiers: { small: [] } }, 'tiers.small', 'at least one model', '[]'],
    [
      'a tier that is no list',
      { tiers: { small: 'simulated/small' } },
      'tiers.small',
      'a list',
      '"simulated/small"',
    ],
    ['an unknown tier name', { tiers: { tiny: ['simulated/small'] } }, 'tiers.tiny', 'no such key', 'a list'],
    [
      'a candidate twice',
      { tiers: { small: ['simulated/small', 'simulated/small'] } },
      'tiers.small',
      'each model once',
      'a repetition',
    ],
    [
      'an unknown protocol',
      provider({ protocol: 'smtp' }),
      'providers.own.protocol',
      'one of openai, anthropic, google, openai-compatible',
      '"smtp"',
    ],
    [
      'a key in place of its name',
      provider({ apiKeyEnv: 'sk-hush' }),
      'providers.own.apiKeyEnv',
      VARIABLE,
      'a text (not shown)',
    ],
    [
      "a name of Weir's own",
      provider({ apiKeyEnv: 'WEIR_ADMIN_KEY' }),
      'providers.own.apiKeyEnv',
      VARIABLE,
      'a text (not shown)',
    ],
    [
      'the file of a secret',
      provider({ apiKeyEnv: 'DATABASE_URL_FILE' }),
      'providers.own.apiKeyEnv',
      VARIABLE,
      'a text (not shown)',
    ],
    [
      'an address that is none',
      provider({ baseUrl: 'nowhere' }),
      'providers.own.baseUrl',
      'an http:// or https:// URL',
      'a text (not shown)',
    ],
    [
      'no way to be available',
      provider({ apiKeyEnv: undefined }),
      'providers.own',
      'one of apiKeyEnv, baseUrlEnv and baseUrl',
      'a map (not shown)',
    ],
    [
      'no address',
      provider({ protocol: 'openai-compatible' }),
      'providers.own',
      'baseUrl or baseUrlEnv',
      'a map (not shown)',
    ],
    [
      'a name with a space',
      { providers: { 'my own': { protocol: 'openai', apiKeyEnv: 'K' } } },
      'providers.my own',
      /^a provider of 1 to 40/,
      'this key',
    ],
    ['a file that is a list', [1], '', 'a map', '[1]'],
  ])('is refused for %s', (_title, value, key, expected, got) => {
    const text = stringify(value);
    const faults = faultsOf({ files: { 'models.yaml': text } });
    expect(faults).toEqual([
      {
        key,
        expected: expect.stringMatching(expected),
        got,
        source: expect.stringMatching(/^models\.yaml(:\d+)?$/),
      },
    ]);
  });

  it('is told with the line of the file that holds it', () => {
    const overlay =
      'models:\n  openai/gpt-5:\n    prices:\n      - validFrom: 2026-01-01\n        input: 1\n        output: x\n';
    const folder = folderWith({ 'models.yaml': overlay });
    expect(faultsOf({ configDir: folder })[0]?.source).toBe('models.yaml:6');
    expect(() => load({ configDir: folder })).toThrow(`(${folder}/models.yaml:6)`);
  });
});
