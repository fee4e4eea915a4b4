// What is sent for a request, as the provider sees it.

import { expect, test, vi } from 'vitest';
import { createLanguageModels } from '../../src/llm/models.ts';
import type { ResponseFormat } from '../../src/task/message.ts';
import { ANTHROPIC_ANSWER, GOOGLE_ANSWER, OPENAI_ANSWER } from './answers.ts';
import { callFor, chunk, modelsAt, refuse, sse, startWire, stream } from './wire.ts';

const SCHEMA = {
  type: 'object',
  properties: { steps: { type: 'array', items: { type: 'string' } } },
  required: ['steps'],
  additionalProperties: false,
};
const ask = async (
  protocol: 'openai' | 'openai-compatible' | 'anthropic' | 'google',
  responseFormat: ResponseFormat,
  body = OPENAI_ANSWER,
  model = 'p/m',
) => {
  await using wire = await startWire(stream(body));
  const call = callFor(model, { responseFormat });
  await modelsAt(wire.url, protocol).stream(call.request);
  return { sent: wire.requests[0]?.body, pieces: call.pieces };
};

test('asks for any JSON object, and still streams the answer in pieces', async () => {
  for (const protocol of ['openai', 'openai-compatible'] as const) {
    const { sent, pieces } = await ask(protocol, { type: 'json' });
    expect(sent.response_format).toEqual({ type: 'json_object' });
    expect(pieces).toEqual(['Hel', 'lo.']);
  }
  const google = await ask('google', { type: 'json' }, GOOGLE_ANSWER);
  expect(google.sent.generationConfig.responseMimeType).toBe('application/json');
  const anthropic = await ask('anthropic', { type: 'json' }, ANTHROPIC_ANSWER);
  expect(JSON.stringify(anthropic.sent.system)).toContain('JSON object');
});

test('asks for JSON that matches a schema, strictly where the schema allows it', async () => {
  const format = { type: 'json_schema', name: 'plan', schema: SCHEMA } as const;
  for (const protocol of ['openai', 'openai-compatible'] as const) {
    const { sent, pieces } = await ask(protocol, format);
    expect(sent.response_format).toMatchObject({
      type: 'json_schema',
      json_schema: { name: 'plan', strict: true, schema: SCHEMA },
    });
    expect(pieces).toEqual(['Hel', 'lo.']);
  }
  const open = await ask('openai', {
    type: 'json_schema',
    schema: { type: 'object', properties: { a: {} } },
  });
  expect(open.sent.response_format.json_schema).toMatchObject({ strict: false, name: 'response' });
  const google = await ask('google', format, GOOGLE_ANSWER);
  expect(google.sent.generationConfig.responseMimeType).toBe('application/json');
  expect(JSON.stringify(google.sent.generationConfig)).toContain('steps');
  const anthropic = await ask('anthropic', format, ANTHROPIC_ANSWER, 'p/claude-sonnet-4-5');
  expect(JSON.stringify(anthropic.sent)).toContain('"steps"');
});

test('tells the caller once what a model does not support', async () => {
  await using wire = await startWire(stream(OPENAI_ANSWER));
  const warnings: object[] = [];
  const models = modelsAt(wire.url, 'openai', (warning) => warnings.push(warning));
  await models.stream(callFor('p/gpt-5-mini', { temperature: 0.5 }).request);
  await models.stream(callFor('p/gpt-5-mini', { temperature: 0.5 }).request);
  expect(warnings).toEqual([
    { model: 'p/gpt-5-mini', text: 'temperature: temperature is not supported for reasoning models' },
  ]);
  expect(wire.requests[0]?.body).not.toHaveProperty('temperature');
  expect(wire.requests[0]?.body.max_completion_tokens).toBe(50);
});

test('keeps system messages ahead of the conversation where they can stand nowhere else', async () => {
  const messages = [
    { role: 'system', content: 'A.' },
    {
      role: 'user',
      content: [
        { type: 'text', text: 'one' },
        { type: 'text', text: ' two' },
      ],
    },
    { role: 'assistant', content: 'three' },
    { role: 'system', content: 'B.' },
    { role: 'user', content: 'four' },
  ] as const;
  await using google = await startWire(stream(GOOGLE_ANSWER));
  await modelsAt(google.url, 'google').stream(callFor('p/m', { messages }).request);
  expect(google.requests[0]?.body.systemInstruction.parts).toEqual([{ text: 'A.' }, { text: 'B.' }]);
  await using anthropic = await startWire(stream(ANTHROPIC_ANSWER));
  await modelsAt(anthropic.url, 'anthropic').stream(callFor('p/m', { messages }).request);
  expect(anthropic.requests[0]?.body.system.map((part: { text: string }) => part.text)).toEqual(['A.', 'B.']);
  await using openai = await startWire(stream(OPENAI_ANSWER));
  await modelsAt(openai.url).stream(callFor('p/m', { messages }).request);
  expect(openai.requests[0]?.body.messages).toEqual([
    { role: 'system', content: 'A.' },
    { role: 'user', content: 'one two' },
    { role: 'assistant', content: 'three' },
    { role: 'system', content: 'B.' },
    { role: 'user', content: 'four' },
  ]);
});

test("never looks for keys and addresses behind the configuration's back", async () => {
  await using stranger = await startWire(stream(''));
  for (const name of ['OPENAI', 'ANTHROPIC', 'GOOGLE_GENERATIVE_AI']) {
    vi.stubEnv(`${name}_API_KEY`, 'sk-environment');
    vi.stubEnv(`${name}_BASE_URL`, stranger.url);
  }
  const answers = { openai: OPENAI_ANSWER, anthropic: ANTHROPIC_ANSWER, google: GOOGLE_ANSWER };
  for (const protocol of ['openai', 'anthropic', 'google'] as const) {
    await using wire = await startWire(stream(answers[protocol]));
    const models = createLanguageModels({
      providers: { p: { protocol, baseUrl: `${wire.url}/base`, available: true } },
    });
    await models.stream(callFor('p/m').request);
    expect(JSON.stringify(wire.requests[0]?.headers)).not.toContain('sk-environment');
    expect(wire.requests[0]?.path).toMatch(/^\/base\//);
  }
  expect(stranger.requests).toHaveLength(0);
  vi.unstubAllEnvs();
});

test("appends the version to an address without a path, as anthropic's and google's own clients do", async () => {
  await using anthropic = await startWire(stream(ANTHROPIC_ANSWER));
  await using google = await startWire(stream(GOOGLE_ANSWER));
  const models = createLanguageModels({
    providers: {
      a: { protocol: 'anthropic', apiKeys: ['k'], baseUrl: anthropic.url, available: true },
      g: { protocol: 'google', apiKeys: ['k'], baseUrl: `${google.url}/`, available: true },
    },
  });
  await models.stream(callFor('a/m').request);
  await models.stream(callFor('g/m').request);
  expect(anthropic.requests[0]?.path).toBe('/v1/messages');
  expect(google.requests[0]?.path).toMatch(/^\/v1beta\/models\/m:/);
});

test('sends the model as the provider calls it, slashes and all, and the temperature', async () => {
  await using wire = await startWire(stream(OPENAI_ANSWER));
  await modelsAt(wire.url, 'openai-compatible').stream(callFor('p/org/model:7b', { temperature: 0 }).request);
  expect(wire.requests[0]?.body).toMatchObject({ model: 'org/model:7b', temperature: 0 });
});

test('prints nothing, whether a call goes well or not', async () => {
  const printed: unknown[] = [];
  const keep = (...args: unknown[]) => void printed.push(args);
  const spies = (['log', 'info', 'warn', 'error', 'debug'] as const).map((name) =>
    vi.spyOn(console, name).mockImplementation(keep),
  );
  const warnings = vi.spyOn(process, 'emitWarning').mockImplementation(keep);
  await using good = await startWire(stream(OPENAI_ANSWER));
  await modelsAt(good.url).stream(callFor('p/gpt-5-mini', { temperature: 1 }).request);
  await using bad = await startWire(refuse(400, { error: { message: 'x' } }));
  await expect(modelsAt(bad.url).stream(callFor('p/m').request)).rejects.toThrow('refused');
  await using cut = await startWire(stream(sse(chunk({ content: 'Hel' }), { error: { message: 'x' } })));
  await expect(modelsAt(cut.url).stream(callFor('p/m').request)).rejects.toThrow('failed');
  for (const spy of [...spies, warnings]) spy.mockRestore();
  expect(printed).toEqual([]);
});
