import { describe, expect, it } from 'vitest';
import { stringify } from 'yaml';
import { faultsOf } from './overlay.ts';

const limit = (change: object) => ({
  budgets: { user: [{ unit: 'usd', window: 'total', amount: '1.00', ...change }] },
});
const rate = (change: object) => ({ rates: { providers: { openai: change } } });
const DIMENSION = 'a whole number from 1 to 1000000000000, or unlimited';
const AMOUNT = 'an amount in USD from 0 to 9000000 with at most 9 decimals';

/** What is wrong, the file, the key that is named, (the beginning of) what was expected, and what came. */
const FAULTY: readonly [string, unknown, string, string, string][] = [
  ['an unknown section', { rate: {} }, 'rate', 'no such key', 'a map'],
  ['an unknown kind', { rates: { regions: {} } }, 'rates.regions', 'no such key', 'a map'],
  ['an unknown dimension', rate({ rps: 1 }), 'rates.providers.openai.rps', 'no such key', 'a number'],
  ['a rate of zero', rate({ rpm: 0 }), 'rates.providers.openai.rpm', DIMENSION, '0'],
  ['a negative rate', rate({ tpm: -1 }), 'rates.providers.openai.tpm', DIMENSION, '-1'],
  ['a broken rate', rate({ rpm: 1.5 }), 'rates.providers.openai.rpm', DIMENSION, '1.5'],
  ['an absurd rate', rate({ rpm: 1e13 }), 'rates.providers.openai.rpm', DIMENSION, '10000000000000'],
  ['a word', rate({ rpm: 'many' }), 'rates.providers.openai.rpm', DIMENSION, '"many"'],
  ['a null dimension', rate({ rpm: null }), 'rates.providers.openai.rpm', DIMENSION, 'null'],
  [
    'no default row',
    { rates: { providers: { default: null } } },
    'rates.providers.default',
    'a row',
    'nothing',
  ],
  [
    'a model without a provider',
    { rates: { models: { new: {} } } },
    'rates.models.new',
    'a model as provider/model',
    'this key',
  ],
  ['an unknown tier', { rates: { tiers: { tiny: {} } } }, 'rates.tiers.tiny', 'no such key', 'a map'],
  [
    'a plan with a brace',
    { rates: { plans: { '{t}': {} } } },
    'rates.plans.{t}',
    'a plan of 1 to 40',
    'this key',
  ],
  [
    'a plan without weight',
    { rates: { plans: { default: { fairnessWeight: 0 } } } },
    'rates.plans.default.fairnessWeight',
    'a number from 0.001 to 1000',
    '0',
  ],
  [
    'a tenant with a plan that is none',
    { rates: { plans: { gold: {} }, tenants: { acme: 'golden' } } },
    'rates.tenants.acme',
    'one of default, gold',
    '"golden"',
  ],
  [
    'a tenant with a brace',
    { rates: { tenants: { '{t}': 'default' } } },
    'rates.tenants.{t}',
    'the id of a tenant',
    'this key',
  ],
  ['an unknown scope', { budgets: { team: [] } }, 'budgets.team', 'no such key', 'a list'],
  ['a scope that is no list', { budgets: { user: {} } }, 'budgets.user', 'a list', '{}'],
  ['an unknown unit', limit({ unit: 'eur' }), 'budgets.user[0].unit', 'one of usd, tokens', '"eur"'],
  ['no unit', limit({ unit: undefined }), 'budgets.user[0].unit', 'one of usd, tokens', 'nothing'],
  [
    'an unknown window',
    limit({ window: 'year' }),
    'budgets.user[0].window',
    'one of total, hour, day, week, month',
    '"year"',
  ],
  ['a negative amount', limit({ amount: -1 }), 'budgets.user[0].amount', AMOUNT, '-1'],
  [
    'an absurd amount',
    limit({ amount: '9000000.000000001' }),
    'budgets.user[0].amount',
    AMOUNT,
    '"9000000.000000001"',
  ],
  ['an amount that is text', limit({ amount: '12abc' }), 'budgets.user[0].amount', AMOUNT, '"12abc"'],
  ['no amount', limit({ amount: undefined }), 'budgets.user[0].amount', AMOUNT, 'nothing'],
  [
    'broken tokens',
    limit({ unit: 'tokens', amount: 1.5 }),
    'budgets.user[0].amount',
    'a whole number of tokens',
    '1.5',
  ],
  [
    'absurd tokens',
    limit({ unit: 'tokens', amount: '9000000000000001' }),
    'budgets.user[0].amount',
    'a whole number of tokens',
    '"9000000000000001"',
  ],
  ['a word for a boolean', limit({ hard: 'yes' }), 'budgets.user[0].hard', 'true or false', '"yes"'],
  [
    'a warning above the limit',
    limit({ warnAt: 1.1 }),
    'budgets.user[0].warnAt',
    'a number from 0 to 1',
    '1.1',
  ],
  ['an unknown key of a limit', limit({ soft: true }), 'budgets.user[0].soft', 'no such key', 'a boolean'],
  [
    'a window of one request',
    { budgets: { perRequest: [{ unit: 'usd', amount: 1, window: 'day' }] } },
    'budgets.perRequest[0].window',
    'no window',
    '"day"',
  ],
  [
    'a zone of one request',
    { budgets: { perRequest: [{ unit: 'usd', amount: 1, zone: 'UTC' }] } },
    'budgets.perRequest[0].zone',
    'no zone',
    '"UTC"',
  ],
  [
    'an unknown zone',
    limit({ window: 'day', zone: 'Europe/Atlantis' }),
    'budgets.user[0].zone',
    'an IANA time zone',
    '"Europe/Atlantis"',
  ],
  [
    'an offset for a zone',
    limit({ window: 'day', zone: '+02:00' }),
    'budgets.user[0].zone',
    'an IANA time zone',
    '"+02:00"',
  ],
  [
    'a zone of all time',
    limit({ zone: 'UTC' }),
    'budgets.user[0].zone',
    'no zone: total never resets',
    '"UTC"',
  ],
  [
    'the same limit twice',
    { budgets: { user: [1, 2].map((amount) => ({ unit: 'usd', amount })) } },
    'budgets.user',
    'one limit for each unit, window, zone and hardness',
    'several',
  ],
  [
    'the same zone in other letters',
    {
      budgets: {
        user: ['Asia/Tokyo', 'asia/tokyo'].map((zone) => ({ unit: 'usd', window: 'day', amount: 1, zone })),
      },
    },
    'budgets.user',
    'one limit for each unit, window, zone and hardness',
    'several',
  ],
];

describe('a faulty limits.yaml', () => {
  it.each(FAULTY)('is refused for %s', (_title, value, key, expected, got) => {
    const faults = faultsOf({ files: { 'limits.yaml': stringify(value) } });
    expect(faults).toEqual([
      {
        key,
        expected: expect.stringContaining(expected),
        got,
        source: expect.stringMatching(/^limits\.yaml(:\d+)?$/),
      },
    ]);
  });
});
