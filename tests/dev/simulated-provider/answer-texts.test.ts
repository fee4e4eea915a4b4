// What plain answers say: they come from the prompt, are the same every time, and have the length that was asked for.

import { expect, test } from 'vitest';
import { composeAnswer } from '../../../dev/simulated-provider/answer/compose-answer.ts';
import type { Ask } from '../../../dev/simulated-provider/ask.ts';
import {
  countTokens,
  cutToTokens,
  repeatToTokens,
  splitByTokens,
} from '../../../dev/simulated-provider/tokens.ts';

function askFor(text: string, more: Partial<Ask> = {}): Ask {
  return {
    model: 'm',
    messages: [{ role: 'user', text }],
    images: 0,
    tools: [],
    toolChoice: { kind: 'auto' },
    format: { kind: 'text' },
    maxOutputTokens: undefined,
    stream: false,
    includeUsage: true,
    cacheTtl: '5m',
    ...more,
  };
}

const textFor = (text: string) => composeAnswer(askFor(text), {}).content.text;

const MATERIAL = [
  'A workflow records every decision in its history.',
  'Lunch is served at noon.',
  'When a worker dies, another worker replays the history of the workflow.',
  'The history of a workflow therefore decides what the workflow does next.',
  'Parking is free on Sundays.',
  'The cafeteria has a new menu with soup and bread for everybody who likes that.',
];

test('sums a text up in its most informative sentences, in their own order', () => {
  const text = textFor(`Summarise in two sentences: ${MATERIAL.join(' ')}`);
  const chosen = MATERIAL.filter((sentence) => text.includes(sentence));
  expect(chosen).toHaveLength(2);
  expect(chosen.every((sentence) => sentence.includes('workflow'))).toBe(true);
  expect(text).toBe(chosen.join(' '));
});

test('answers every prompt in 40 to 120 tokens when nothing else is asked', () => {
  const prompts = [
    'hi',
    'What is the capital of France?',
    '总结以下内容：时间是一个平台。',
    'x'.repeat(5_000),
    MATERIAL.join(' ').repeat(40),
  ];
  for (const prompt of prompts) {
    expect(countTokens(textFor(prompt)), prompt.slice(0, 20)).toBeGreaterThanOrEqual(40);
    expect(countTokens(textFor(prompt)), prompt.slice(0, 20)).toBeLessThanOrEqual(120);
    expect(textFor(prompt)).toBe(textFor(prompt));
  }
});

test('has the length that the prompt names', () => {
  expect(countTokens(textFor('Write exactly 300 tokens about the sea.'))).toBe(300);
  expect(textFor('Describe the sea in 25 words.').split(' ')).toHaveLength(25);
  expect(textFor('Describe the sea in one sentence.').split('. ')).toHaveLength(1);
});

test('leaves markers of faults out of its answers', () => {
  const marked = `Plan the harvest, then sell the apples [[sim:{"status":500,"times":1,"id":"harvest"}]] at the market.`;
  expect(textFor(marked)).not.toContain('sim');
  expect(textFor(marked)).not.toContain('status');
});

test.each([0, 1, 2, 3, 57, 5_000])('makes an answer of exactly %i tokens', (outputTokens) => {
  for (const ask of [
    askFor('Explain leases.'),
    askFor('Explain leases.', { model: 'reasoner' }),
    askFor('日本語で説明して'),
  ]) {
    const answer = composeAnswer(ask, { outputTokens });
    expect(answer.outputTokens).toBe(outputTokens);
    expect(answer.reasoningTokens + countTokens(answer.content.text)).toBe(outputTokens);
  }
});

test('keeps a JSON answer valid when it is made longer', () => {
  const answer = composeAnswer(askFor('Explain leases.', { format: { kind: 'json' } }), {
    outputTokens: 400,
  });
  expect(answer.outputTokens).toBe(400);
  expect(() => JSON.parse(answer.content.text)).not.toThrow();
});

test('counts, cuts, splits and repeats by a quarter of the bytes without breaking a character', () => {
  expect([
    countTokens(''),
    countTokens('a'),
    countTokens('abcd'),
    countTokens('abcde'),
    countTokens('é€😀'),
  ]).toEqual([0, 1, 1, 2, 3]);
  const text = 'naïve 😀 日本語 text with everything in it';
  expect(splitByTokens(text, 2).join('')).toBe(text);
  expect(splitByTokens(text, 2).every((piece) => piece.isWellFormed())).toBe(true);
  expect(countTokens(cutToTokens(text, 5))).toBe(5);
  expect(text.startsWith(cutToTokens(text, 5))).toBe(true);
  expect(countTokens(repeatToTokens('日本', 33))).toBe(33);
});
