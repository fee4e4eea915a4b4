// The fake does what its script says, and says so when the script is at its end.

import { expect, test } from 'vitest';
import { callFor } from '../llm/wire.ts';
import { createFakeModels } from './fake-models.ts';

test('plays its steps in order and keeps the requests', async () => {
  const models = createFakeModels([
    { kind: 'reply', pieces: ['a', 'b'], finishReason: 'length' },
    { kind: 'error', pieces: ['c'], error: { kind: 'cut', stage: 'output' } },
  ]);
  const first = callFor('p/m');
  expect(await models.stream(first.request)).toEqual({
    text: 'ab',
    outputText: 'ab',
    finishReason: 'length',
    usage: undefined,
  });
  const second = callFor('p/n');
  await expect(models.stream(second.request)).rejects.toMatchObject({ kind: 'cut', outputText: 'c' });
  expect(second.pieces).toEqual(['c']);
  expect(models.requests).toEqual([first.request, second.request]);
  await expect(models.stream(callFor('p/m').request)).rejects.toThrow('the script has no step for call 3');
});

test('waits for its gate and counts what is in flight', async () => {
  const gate = Promise.withResolvers<void>();
  const models = createFakeModels((_, index) => ({
    kind: 'reply',
    until: gate.promise,
    pieces: [`${index}`],
  }));
  const outcome = Promise.all([models.stream(callFor('p/m').request), models.stream(callFor('p/m').request)]);
  await expect.poll(() => models.inFlight()).toBe(2);
  gate.resolve();
  expect((await outcome).map(({ text }) => text)).toEqual(['0', '1']);
  expect(models.inFlight()).toBe(0);
});

test('is aborted while it waits, between pieces and in its delay', async () => {
  const models = createFakeModels((_, index) =>
    index === 0
      ? { kind: 'reply', until: new Promise(() => {}) }
      : index === 1
        ? { kind: 'reply', pieces: ['a', 'b'] }
        : { kind: 'reply', delayMs: 3_600_000 },
  );
  const waiting = new AbortController();
  const outcome = models.stream(callFor('p/m', { signal: waiting.signal }).request);
  waiting.abort();
  await expect(outcome).rejects.toMatchObject({ kind: 'aborted', stage: 'unanswered' });
  const between = new AbortController();
  await expect(
    models.stream(callFor('p/m', { signal: between.signal, onText: () => between.abort() }).request),
  ).rejects.toMatchObject({ kind: 'aborted', stage: 'output', outputText: 'a' });
  const delayed = new AbortController();
  const late = models.stream(callFor('p/m', { signal: delayed.signal }).request);
  delayed.abort();
  await expect(late).rejects.toMatchObject({ kind: 'aborted' });
});
