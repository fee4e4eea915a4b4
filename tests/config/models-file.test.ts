import { describe, expect, it } from 'vitest';
import { stringify } from 'yaml';
import type { Config } from '../../src/config.ts';
import { costNanoUsd, priceAt } from '../../src/task/price.ts';
import { faultsOf, load } from './overlay.ts';

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
      expect(tiers[tier].strategy).toBe('priority');
      expect(tiers[tier].candidates.at(-1)).toBe(`simulated/${tier}`);
      for (const id of tiers[tier].candidates) expect([id, models[id]?.tier]).toEqual([id, tier]);
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
      openai: { protocol: 'openai', apiKeys: ['sk'], available: true },
      anthropic: { protocol: 'anthropic', apiKeys: [], baseUrl: 'http://a', available: false },
      google: { protocol: 'google', apiKeys: [], available: false },
      simulated: {
        protocol: 'openai-compatible',
        apiKeys: [],
        baseUrl: 'http://127.0.0.1:1/v1',
        available: true,
      },
    });
  });

  it('may have several keys, of which those that are set are used in turn', () => {
    const apiKeyEnv = ['OPENAI_API_KEY', 'OPENAI_API_KEY_2', 'OPENAI_API_KEY_3'];
    const files = { 'models.yaml': stringify({ providers: { openai: { apiKeyEnv } } }) };
    expect(load({ files }).providers['openai']).toMatchObject({ apiKeys: [], available: false });
    const env = { OPENAI_API_KEY: 'sk-1', OPENAI_API_KEY_3: 'sk-3' };
    expect(load({ files, env }).providers['openai']).toMatchObject({
      apiKeys: ['sk-1', 'sk-3'],
      available: true,
    });
    const same = { OPENAI_API_KEY: 'sk-1', OPENAI_API_KEY_2: 'sk-1' };
    expect(load({ files, env: same }).providers['openai']?.apiKeys).toEqual(['sk-1']);
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

  it('gives a tier a strategy; a plain list is tried as listed', () => {
    const candidates = ['simulated/small', 'openai/gpt-5-nano'];
    const { tiers } = withModels({
      tiers: { small: { strategy: 'least_cost', candidates }, medium: { candidates }, large: candidates },
    });
    expect(tiers).toEqual({
      small: { strategy: 'least_cost', candidates },
      medium: { strategy: 'priority', candidates },
      large: { strategy: 'priority', candidates },
    });
  });

  it('changes one key of a model, replaces lists as a whole, and may name models with slashes', () => {
    const shipped = load().models['openai/gpt-5'];
    const { models, tiers } = withModels({
      models: { 'openai/gpt-5': { maxOutputTokens: 7 }, 'openai/ft:a/b@1': MODEL },
      tiers: { small: ['simulated/small'] },
    });
    expect(models['openai/gpt-5']).toEqual({ ...shipped, maxOutputTokens: 7 });
    expect(models['openai/ft:a/b@1']).toMatchObject({ provider: 'openai', name: 'ft:a/b@1' });
    expect(tiers.small).toEqual({ strategy: 'priority', candidates: ['simulated/small'] });
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
