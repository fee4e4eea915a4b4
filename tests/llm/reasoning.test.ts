// How hard a model is asked to think, as the provider sees it.

import { describe, expect, it } from 'vitest';
import type { ProviderAccess } from '../../src/llm/protocol.ts';
import { REASONING_EFFORTS, type ReasoningEffort } from '../../src/task/input.ts';
import { ANTHROPIC_ANSWER, GOOGLE_ANSWER, OPENAI_ANSWER } from './answers.ts';
import { callFor, modelsAt, startWire, stream } from './wire.ts';

type Asked = {
  readonly protocol: ProviderAccess['protocol'];
  readonly model: string;
  readonly effort?: ReasoningEffort;
  readonly maxOutputTokens?: number;
  readonly canReason?: boolean;
};

async function sentFor({ protocol, model, effort, maxOutputTokens = 10_000, canReason = true }: Asked) {
  const answers = {
    openai: OPENAI_ANSWER,
    'openai-compatible': OPENAI_ANSWER,
    anthropic: ANTHROPIC_ANSWER,
    google: GOOGLE_ANSWER,
  };
  await using wire = await startWire(stream(answers[protocol]));
  const models = modelsAt(wire.url, protocol, undefined, { canReason: () => canReason });
  const more = { maxOutputTokens, ...(effort === undefined ? {} : { reasoningEffort: effort }) };
  await models.stream(callFor(`p/${model}`, more).request);
  return wire.requests[0]?.body;
}

describe('reasoning effort', () => {
  it.each(REASONING_EFFORTS)('%s is a word to openai and whoever speaks its protocol', async (effort) => {
    for (const [protocol, model] of [
      ['openai', 'gpt-5-mini'],
      ['openai-compatible', 'own'],
    ] as const)
      expect(await sentFor({ protocol, model, effort })).toMatchObject({ reasoning_effort: effort });
  });

  it.each([
    ['low', 2_000],
    ['medium', 5_000],
    ['high', 8_000],
  ] as const)(
    '%s is a budget of thoughts to claude, within the output that was held for',
    async (effort, budget) => {
      const sent = await sentFor({ protocol: 'anthropic', model: 'claude-haiku-4-5', effort });
      expect(sent).toMatchObject({
        thinking: { type: 'enabled', budget_tokens: budget },
        max_tokens: 10_000,
      });
    },
  );

  it.each([
    ['minimal', 10_000],
    ['low', 1_279],
    ['high', 1_000],
  ] as const)('%s asks claude for no thoughts with %i tokens of output', async (effort, maxOutputTokens) => {
    const asked = {
      protocol: 'anthropic',
      model: 'claude-haiku-4-5-20251001',
      effort,
      maxOutputTokens,
    } as const;
    const sent = await sentFor(asked);
    expect(sent).not.toHaveProperty('thinking');
    expect(sent.max_tokens).toBe(maxOutputTokens);
  });

  it('raises a small budget to the least that claude takes, where an answer fits beside it', async () => {
    const asked = {
      protocol: 'anthropic',
      model: 'claude-haiku-4-5',
      effort: 'low',
      maxOutputTokens: 1_280,
    } as const;
    expect(await sentFor(asked)).toMatchObject({ thinking: { budget_tokens: 1_024 }, max_tokens: 1_280 });
  });

  it.each([
    ['minimal', 512],
    ['low', 2_000],
    ['medium', 5_000],
    ['high', 8_000],
  ] as const)('%s is a budget to gemini 2.5', async (effort, thinkingBudget) => {
    const sent = await sentFor({ protocol: 'google', model: 'gemini-2.5-flash', effort });
    expect(sent.generationConfig).toMatchObject({
      maxOutputTokens: 10_000,
      thinkingConfig: { thinkingBudget },
    });
  });

  it('is no larger a budget than gemini takes', async () => {
    const asked = {
      protocol: 'google',
      model: 'gemini-2.5-pro',
      effort: 'high',
      maxOutputTokens: 65_536,
    } as const;
    expect((await sentFor(asked)).generationConfig.thinkingConfig).toEqual({ thinkingBudget: 24_576 });
  });

  it.each(['low', 'high'] as const)('%s is a word to gemini 3', async (effort) => {
    const sent = await sentFor({ protocol: 'google', model: 'gemini-3-pro-preview', effort });
    expect(sent.generationConfig.thinkingConfig).toEqual({ thinkingLevel: effort });
  });

  it('is left out where the model does not reason, and where nobody asked for it', async () => {
    for (const more of [{ effort: 'high', canReason: false }, {}] as const) {
      const openai = await sentFor({ protocol: 'openai', model: 'gpt-5-mini', ...more });
      expect(openai).not.toHaveProperty('reasoning_effort');
      const anthropic = await sentFor({ protocol: 'anthropic', model: 'claude-haiku-4-5', ...more });
      expect(anthropic).not.toHaveProperty('thinking');
      const google = await sentFor({ protocol: 'google', model: 'gemini-2.5-flash', ...more });
      expect(google.generationConfig).not.toHaveProperty('thinkingConfig');
    }
  });

  it('stands beside the wish for a schema', async () => {
    await using wire = await startWire(stream(OPENAI_ANSWER));
    const schema = { type: 'object', properties: {}, additionalProperties: false };
    const more = { reasoningEffort: 'low', responseFormat: { type: 'json_schema', schema } } as const;
    const models = modelsAt(wire.url, 'openai', undefined, { canReason: () => true });
    await models.stream(callFor('p/gpt-5-mini', more).request);
    expect(wire.requests[0]?.body).toMatchObject({
      reasoning_effort: 'low',
      response_format: { json_schema: { strict: true } },
    });
  });
});
