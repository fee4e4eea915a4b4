// One suite for whatever stands behind the seam: the models over the wire, in each dialect, and the fake that other tests use.

import { afterEach, describe, expect, test } from 'vitest';
import { LlmError } from '../../src/llm/error.ts';
import type { LanguageModels } from '../../src/llm/language-model.ts';
import type { Protocol } from '../../src/llm/protocol.ts';
import { createFakeModels } from '../support/fake-models.ts';
import { ANTHROPIC_ANSWER, GOOGLE_ANSWER, OPENAI_ANSWER } from './answers.ts';
import { callFor, modelsAt, refuse, startWire, stream } from './wire.ts';

type Behaviour = 'answer' | 'refuse' | 'hang';
type Subject = {
  readonly name: string;
  readonly open: (behaviour: Behaviour) => Promise<LanguageModels & AsyncDisposable>;
};

const ANSWERS = {
  openai: OPENAI_ANSWER,
  'openai-compatible': OPENAI_ANSWER,
  anthropic: ANTHROPIC_ANSWER,
  google: GOOGLE_ANSWER,
} as const satisfies Record<Protocol, string>;

const overWire = (protocol: Protocol): Subject => ({
  name: protocol,
  open: async (behaviour) => {
    const answers = { answer: stream(ANSWERS[protocol]), refuse: refuse(429, {}), hang: () => {} };
    const wire = await startWire(answers[behaviour]);
    return Object.assign(modelsAt(wire.url, protocol), {
      [Symbol.asyncDispose]: () => wire[Symbol.asyncDispose](),
    });
  },
});

const fake: Subject = {
  name: 'fake',
  open: async (behaviour) => {
    const steps = {
      answer: { kind: 'reply', pieces: ['Hel', 'lo.'] },
      refuse: { kind: 'error', error: { kind: 'rate_limited', stage: 'answered', status: 429 } },
      hang: { kind: 'hang' },
    } as const;
    const models = createFakeModels([steps[behaviour]], { models: ['p/m'] });
    return Object.assign(models, { [Symbol.asyncDispose]: async () => {} });
  },
};

const SUBJECTS = [
  overWire('openai'),
  overWire('openai-compatible'),
  overWire('anthropic'),
  overWire('google'),
  fake,
];

const unhandled: unknown[] = [];
process.on('unhandledRejection', (reason) => unhandled.push(reason));
afterEach(() => expect(unhandled).toEqual([]));

describe.each(SUBJECTS)('$name', ({ open }) => {
  test('answers with the pieces that it handed out, after at least one sign of life', async () => {
    await using models = await open('answer');
    const call = callFor('p/m');
    const reply = await models.stream(call.request);
    expect(reply).toMatchObject({ text: 'Hello.', finishReason: 'stop' });
    expect(call.pieces.join('')).toBe(reply.text);
    expect(call.progress).toBeGreaterThan(0);
  });

  test('needs no progress callback', async () => {
    await using models = await open('answer');
    const { onProgress: _, ...request } = callFor('p/m').request;
    expect((await models.stream(request)).text).toBe('Hello.');
  });

  test('rejects with the status that it saw', async () => {
    await using models = await open('refuse');
    const call = callFor('p/m');
    const error = await models.stream(call.request).catch((reason: unknown) => reason);
    expect(error).toBeInstanceOf(LlmError);
    expect(error).toMatchObject({ kind: 'rate_limited', stage: 'answered', status: 429 });
    expect(call.pieces).toEqual([]);
  });

  test('is aborted while it hangs', async () => {
    await using models = await open('hang');
    const abort = new AbortController();
    const outcome = models.stream(callFor('p/m', { signal: abort.signal }).request);
    setImmediate(() => abort.abort());
    await expect(outcome).rejects.toMatchObject({ name: 'LlmError', kind: 'aborted' });
  });

  test('is aborted before it begins', async () => {
    await using models = await open('answer');
    const { request } = callFor('p/m', { signal: AbortSignal.abort() });
    await expect(models.stream(request)).rejects.toMatchObject({ kind: 'aborted', stage: 'unsent' });
  });

  test('knows its models and refuses others unsent', async () => {
    await using models = await open('answer');
    expect(models.has('p/m')).toBe(true);
    expect(models.has('q/m')).toBe(false);
    await expect(models.stream(callFor('q/m').request)).rejects.toMatchObject({
      kind: 'not_found',
      stage: 'unsent',
    });
  });
});
