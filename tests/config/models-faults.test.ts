import { describe, expect, it } from 'vitest';
import { stringify } from 'yaml';
import { faultsOf, folderWith, load } from './overlay.ts';

const MODEL = {
  tier: 'small',
  contextWindow: 1_000,
  maxOutputTokens: 100,
  capabilities: ['tools'],
  prices: [{ validFrom: '2026-01-01', input: 0.25, output: '2.00' }],
};

const model = (change: object) => ({ models: { 'openai/new': { ...MODEL, ...change } } });
const price = (change: object) =>
  model({ prices: [{ validFrom: '2026-01-01', input: 1, output: 2, ...change }] });
const provider = (change: object) => ({
  providers: { own: { protocol: 'openai', apiKeyEnv: 'OWN_KEY', ...change } },
});
const PRICE = 'a price in USD per million tokens from 0 to 1000000 with at most 9 decimals';
const MOMENT = 'a date such as 2026-01-31, or a time such as 2026-01-31T12:00:00Z';
const VARIABLE = "the name of an environment variable (A-Z 0-9 _) that is not one of Weir's own";

/** What is wrong, the file, the key that is named, (the beginning of) what was expected, and what came. */
const FAULTY: readonly [string, unknown, string, string, string][] = [
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
    'one of tools, json',
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
    'a provider out of openai,',
    '"nobody"',
  ],
  ['a price that is text', price({ input: '12abc' }), 'models.openai/new.prices[0].input', PRICE, '"12abc"'],
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
  ['an unknown price', price({ cached: 1 }), 'models.openai/new.prices[0].cached', 'no such key', 'a number'],
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
    'a key in place of its name, in a list',
    provider({ apiKeyEnv: ['OWN_KEY', 'sk-hush'] }),
    'providers.own.apiKeyEnv',
    VARIABLE,
    'a list (not shown)',
  ],
  ['no name at all', provider({ apiKeyEnv: [] }), 'providers.own.apiKeyEnv', VARIABLE, 'a list (not shown)'],
  [
    "a name of Weir's own in a list",
    provider({ apiKeyEnv: ['OWN_KEY', 'WEIR_ADMIN_KEY'] }),
    'providers.own.apiKeyEnv',
    VARIABLE,
    'WEIR_ADMIN_KEY',
  ],
  [
    'an unknown strategy',
    { tiers: { small: { strategy: 'cheapest', candidates: ['simulated/small'] } } },
    'tiers.small.strategy',
    'one of priority, least_cost, round_robin',
    '"cheapest"',
  ],
  [
    'a strategy without candidates',
    { tiers: { small: { strategy: 'least_cost' } } },
    'tiers.small.candidates',
    '',
    'nothing',
  ],
  [
    'a candidate that is no model, in a strategy',
    { tiers: { small: { candidates: ['small'] } } },
    'tiers.small.candidates[0]',
    'a model as provider/model',
    '"small"',
  ],
  [
    "a name of Weir's own",
    provider({ apiKeyEnv: 'WEIR_ADMIN_KEY' }),
    'providers.own.apiKeyEnv',
    VARIABLE,
    'WEIR_ADMIN_KEY',
  ],
  [
    'the file of a secret',
    provider({ apiKeyEnv: 'DATABASE_URL_FILE' }),
    'providers.own.apiKeyEnv',
    VARIABLE,
    'DATABASE_URL_FILE',
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
    'a provider of 1 to 40',
    'this key',
  ],
  ['a file that is a list', [1], '', 'a map', '[1]'],
];

describe('a faulty models.yaml', () => {
  it.each(FAULTY)('is refused for %s', (_title, value, key, expected, got) => {
    const faults = faultsOf({ files: { 'models.yaml': stringify(value) } });
    expect(faults).toEqual([
      {
        key,
        expected: expect.stringContaining(expected),
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
