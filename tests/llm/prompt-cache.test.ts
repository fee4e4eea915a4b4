// Which parts of a prompt are marked for a cache, as the provider sees it.

import { expect, it } from 'vitest';
import type { Message } from '../../src/task/message.ts';
import { ANTHROPIC_ANSWER, GOOGLE_ANSWER, OPENAI_ANSWER } from './answers.ts';
import { callFor, modelsAt, startWire, stream } from './wire.ts';

const LONG = 'x'.repeat(4_096);
const MARK = { type: 'ephemeral' };

async function anthropicFor(messages: readonly Message[], cachePrompts?: boolean) {
  await using wire = await startWire(stream(ANTHROPIC_ANSWER));
  const models = modelsAt(
    wire.url,
    'anthropic',
    undefined,
    cachePrompts === undefined ? {} : { cachePrompts },
  );
  await models.stream(callFor('p/claude-haiku-4-5', { messages }).request);
  return wire.requests[0]?.body;
}

it('marks long instructions, and a long conversation up to its newest message', async () => {
  const { system, messages } = await anthropicFor([
    { role: 'system', content: 'Be brief.' },
    { role: 'system', content: LONG },
    { role: 'user', content: 'one' },
    { role: 'assistant', content: 'two' },
    { role: 'user', content: 'three' },
  ]);
  expect(system).toEqual([
    { type: 'text', text: 'Be brief.' },
    { type: 'text', text: LONG, cache_control: MARK },
  ]);
  expect(messages.map((message: { content: unknown[] }) => message.content)).toEqual([
    [{ type: 'text', text: 'one' }],
    [{ type: 'text', text: 'two', cache_control: MARK }],
    [{ type: 'text', text: 'three' }],
  ]);
});

it('marks a conversation that is long without instructions', async () => {
  const { messages } = await anthropicFor([
    { role: 'user', content: LONG },
    { role: 'assistant', content: 'two' },
    { role: 'user', content: 'three' },
  ]);
  expect(messages[1].content[0].cache_control).toEqual(MARK);
  expect(JSON.stringify(messages).match(/cache_control/g)).toHaveLength(1);
});

it('marks nothing that is short, nor a long question that nobody will repeat', async () => {
  const short = await anthropicFor([
    { role: 'system', content: LONG.slice(1) },
    { role: 'user', content: LONG },
  ]);
  expect(JSON.stringify(short)).not.toContain('cache_control');
  expect(JSON.stringify(await anthropicFor([{ role: 'user', content: LONG }]))).not.toContain(
    'cache_control',
  );
});

it('marks nothing where that is turned off', async () => {
  const messages = [
    { role: 'system', content: LONG },
    { role: 'user', content: 'one' },
  ] as const;
  expect(JSON.stringify(await anthropicFor(messages, true))).toContain('cache_control');
  expect(JSON.stringify(await anthropicFor(messages, false))).not.toContain('cache_control');
});

it('sends no marks to those that cache by themselves', async () => {
  const messages = [
    { role: 'system', content: LONG },
    { role: 'user', content: 'one' },
    { role: 'assistant', content: 'two' },
    { role: 'user', content: 'three' },
  ] as const;
  const answers = { openai: OPENAI_ANSWER, 'openai-compatible': OPENAI_ANSWER, google: GOOGLE_ANSWER };
  for (const protocol of ['openai', 'openai-compatible', 'google'] as const) {
    await using wire = await startWire(stream(answers[protocol]));
    await modelsAt(wire.url, protocol).stream(callFor('p/m', { messages }).request);
    expect(JSON.stringify(wire.requests[0]?.body)).not.toMatch(/cache/i);
  }
});
