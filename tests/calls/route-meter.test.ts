// What is counted of a call's way: what was asked for, what answered, and why it was not the same.

import { expect, it } from 'vitest';
import type { CallMeter, CallRequest } from '../../src/calls/call.ts';
import { createCalls } from '../../src/calls/govern.ts';
import { createMetrics } from '../../src/metrics.ts';
import { beginTask, callDependencies, contextOf, MODEL, PRICE, requestOf } from '../support/calls.ts';
import { createFakeModels } from '../support/fake-models.ts';
import { openTestStores, type TestStores } from '../support/stores.ts';

const ANSWER = { kind: 'reply', pieces: ['hello'] } as const;
const FALLBACK = { model: 'openai/gone', reason: 'auth', cause: 'away', since: 2 } as const;

/** One visit, and what was counted of it. */
async function counted(test: TestStores, taskId: string, change: Partial<CallRequest>): Promise<string[]> {
  await beginTask(test, taskId);
  const lines: string[] = [];
  const made = callDependencies(test, createFakeModels([ANSWER]));
  const tell = (name: string) => (labels: object) =>
    void lines.push(`${name} ${Object.values(labels).join(' ')}`);
  const meter: CallMeter = {
    ...made.meter,
    requested: tell('requested'),
    selected: tell('selected'),
    fellBack: tell('fellBack'),
  };
  const catalog = {
    priceHash: 'hash',
    modelOf: () => ({ tier: 'small', maxOutputTokens: 40, prices: [PRICE] }) as const,
  };
  const calls = createCalls({ ...made, meter, catalog });
  await calls.visit({ ...requestOf(taskId), ...change }, contextOf());
  return lines;
}

it('counts what a call set out for, what answered, and each move with its reason', async () => {
  await using test = await openTestStores();
  expect(await counted(test, 'plain', { tier: 'small', isFirst: true })).toEqual([
    'requested small simulated',
    'selected small simulated requested',
  ]);
  const moved = { number: { candidate: 1, visit: 2, attempt: 1 }, fallback: FALLBACK };
  expect(await counted(test, 'moved', { tier: 'small', ...moved })).toEqual([
    'fellBack small openai auth',
    'selected small simulated auth',
  ]);
  // A later visit at the same model is no further move.
  const later = { ...moved, number: { candidate: 1, visit: 3, attempt: 1 } };
  expect(await counted(test, 'later', { tier: 'small', ...later })).toEqual([
    'selected small simulated auth',
  ]);
  // An activity that is tried again is the same visit.
  const again = { ...moved, number: { candidate: 1, visit: 2, attempt: 2 } };
  expect(await counted(test, 'again', { tier: 'small', ...again })).toEqual([
    'selected small simulated auth',
  ]);
});

it('counts a lower tier as such, a budget without its name, and a model that no tier has', async () => {
  await using test = await openTestStores();
  expect(await counted(test, 'lowered', { tier: 'large', isFirst: true })).toEqual([
    'requested large simulated',
    'selected small simulated other_tier',
  ]);
  const reason = 'no room in the budget of user ada';
  const dear = { ...FALLBACK, reason, cause: 'budget' } as const;
  const number = { candidate: 1, visit: 2, attempt: 1 };
  expect(await counted(test, 'dear', { tier: 'small', fallback: dear, number })).toEqual([
    'fellBack small openai budget',
    'selected small simulated budget',
  ]);
  expect(await counted(test, 'loose', { isFirst: true })).toEqual([
    'requested none simulated',
    'selected small simulated requested',
  ]);
});

it('writes the metrics of these names', async () => {
  const { call, registry } = createMetrics();
  call.requested({ tier: 'small', provider: 'openai' });
  call.fellBack({ tier: 'small', provider: 'openai', reason: 'auth' });
  call.selected({ tier: 'small', provider: 'google', reason: 'auth' });
  const page = await registry.metrics();
  expect(page).toContain('weir_tier_requested_total{tier="small",provider="openai"} 1');
  expect(page).toContain('weir_fallback_total{tier="small",provider="openai",reason="auth"} 1');
  expect(page).toContain('weir_tier_selected_total{tier="small",provider="google",reason="auth"} 1');
});

it('asks no model for more than it can write, and does not call that a clamped answer', async () => {
  await using test = await openTestStores();
  await beginTask(test, 'a');
  const models = createFakeModels([ANSWER]);
  const made = callDependencies(test, models);
  const catalog = { priceHash: 'hash', modelOf: () => ({ maxOutputTokens: 40, prices: [PRICE] }) };
  const outcome = await createCalls({ ...made, catalog }).visit(requestOf('a'), contextOf());
  expect(models.requests).toMatchObject([{ model: MODEL, maxOutputTokens: 40 }]);
  expect(outcome).toMatchObject({ kind: 'completed' });
  expect(outcome).not.toHaveProperty('clampedTo');
});

it('passes the reasoning effort on', async () => {
  await using test = await openTestStores();
  await beginTask(test, 'a');
  const models = createFakeModels([ANSWER]);
  const calls = createCalls(callDependencies(test, models));
  await calls.visit({ ...requestOf('a'), reasoningEffort: 'low' }, contextOf());
  expect(models.requests).toMatchObject([{ reasoningEffort: 'low' }]);
});
