// The bound on a request's tokens is never below their count, and counting long or odd texts is right and gives way to others.

import { describe, expect, test } from 'vitest';
import {
  countInputTokens,
  countTokensAsync,
  estimateInputTokens,
  loadTokenCounter,
} from '../../src/llm/count.ts';
import type { Message } from '../../src/task/message.ts';

const TEXTS = {
  english: 'The quick brown fox jumps over the lazy dog. '.repeat(300),
  german: 'Donaudampfschifffahrtsgesellschaftskapitän, Überprüfungsausschuss. '.repeat(50),
  chinese: '人工智能正在改变世界，也改变我们的工作方式。'.repeat(200),
  emoji: '👩‍👩‍👧‍👦🏳️‍🌈'.repeat(100),
  code: 'if (a[i]?.b !== undefined) {\n\t\treturn { ...c, [d]: e ?? f };\n}\n'.repeat(60),
  rare: '𒀀𒀁𒀂꧁꧂ᚠᚢᚦ'.repeat(100),
  lone: '\ud800a\udc00'.repeat(50),
  empty: '',
};

test.each(Object.entries(TEXTS))('estimateInputTokens is no less than the tokens of %s', async (_, text) => {
  const messages: Message[] = [
    { role: 'system', content: text },
    { role: 'user', content: [{ type: 'text', text }] },
  ];
  const tokens = 2 * (await countTokensAsync(text));
  expect(estimateInputTokens(messages)).toBeGreaterThan(tokens);
});

test('estimateInputTokens counts bytes, messages and the format', () => {
  const one = estimateInputTokens([{ role: 'user', content: 'é' }]);
  expect(estimateInputTokens([{ role: 'user', content: 'éé' }])).toBe(one + 2);
  expect(estimateInputTokens([{ role: 'user', content: [{ type: 'text', text: 'é' }] }])).toBe(one);
  const two = estimateInputTokens([
    { role: 'user', content: 'é' },
    { role: 'user', content: '' },
  ]);
  expect(two - one).toBeGreaterThanOrEqual(8);
  const message = [{ role: 'user', content: 'é' }] as const;
  expect(estimateInputTokens(message, { type: 'text' })).toBe(one);
  expect(estimateInputTokens(message, { type: 'json' })).toBeGreaterThan(one);
  const schema = { type: 'object', properties: { steps: { type: 'array' } } };
  const withSchema = estimateInputTokens(message, { type: 'json_schema', schema });
  expect(withSchema - one).toBeGreaterThan(JSON.stringify(schema).length);
});

test('counting is exact in one slice and off by no more than one at each further one', async () => {
  const countTokens = await loadTokenCounter();
  expect(countTokens('hello world')).toBe(2);
  expect(countTokens('')).toBe(0);
  const { countTokens: whole } = await import('gpt-tokenizer/encoding/o200k_base');
  for (const text of [TEXTS.english, TEXTS.german, TEXTS.code]) {
    const slices = Math.ceil(text.length / 2_048);
    expect(countTokens(text)).toBeGreaterThanOrEqual(whole(text));
    expect(countTokens(text)).toBeLessThanOrEqual(whole(text) + 2 * slices);
    expect(await countTokensAsync(text)).toBe(countTokens(text));
  }
});

test('counting takes the names of special tokens for text', async () => {
  expect(await countTokensAsync('a <|endoftext|> b')).toBeGreaterThan(3);
});

test('counting splits no character between slices', async () => {
  const countTokens = await loadTokenCounter();
  const single = countTokens('😀');
  expect(countTokens(`a${'😀'.repeat(4_096)}`)).toBeLessThanOrEqual(1 + single * 4_096);
});

test('countTokensAsync lets others work in between', async () => {
  await loadTokenCounter();
  let turns = 0;
  let isDone = false;
  const turn = () => {
    turns++;
    if (!isDone) setImmediate(turn);
  };
  setImmediate(turn);
  await countTokensAsync('word '.repeat(20_000));
  isDone = true;
  expect(turns).toBeGreaterThan(20);
});

describe('countInputTokens', () => {
  const messages: readonly Message[] = [
    { role: 'system', content: TEXTS.german },
    { role: 'user', content: [{ type: 'text', text: TEXTS.english }] },
  ];

  test("takes the count as it is where the tokenizer is the model's own, and 15 % more elsewhere", async () => {
    const own = await countInputTokens('openai/gpt-5-mini', messages);
    const counted = (await countTokensAsync(TEXTS.german)) + (await countTokensAsync(TEXTS.english));
    const overhead = own - counted;
    expect(overhead).toBe(estimateInputTokens(messages) - Buffer.byteLength(TEXTS.german + TEXTS.english));
    for (const model of ['anthropic/claude', 'simulated/gpt-5', 'openai/gpt-4', 'openai/somebody-elses'])
      expect(await countInputTokens(model, messages)).toBe(overhead + Math.ceil(counted * 1.15));
  });

  test('is never above the bound by bytes', async () => {
    // One token a character: the margin alone would pass the bytes.
    const dense: readonly Message[] = [{ role: 'user', content: '\u0001\u0002\u0003\u0004'.repeat(500) }];
    expect(await countTokensAsync('\u0001\u0002\u0003\u0004'.repeat(500))).toBeGreaterThan(2_000 / 1.15);
    expect(await countInputTokens('anthropic/claude', dense)).toBe(estimateInputTokens(dense));
  });

  test('counts the schema of the answer, which may be set in anew', async () => {
    const schema = { type: 'object', properties: { steps: { type: 'array' } } };
    const plain = await countInputTokens('openai/gpt-5', messages);
    const bound = await countInputTokens('openai/gpt-5', messages, {
      type: 'json_schema',
      name: 'plan',
      schema,
    });
    const tokens = await countTokensAsync(`${JSON.stringify(schema)}plan`);
    expect(bound - plain).toBeGreaterThanOrEqual(2 * tokens);
    expect(bound).toBeLessThan(estimateInputTokens(messages, { type: 'json_schema', name: 'plan', schema }));
    expect(await countInputTokens('openai/gpt-5', messages, { type: 'json' })).toBeGreaterThan(plain);
  });
});
