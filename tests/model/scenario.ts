// What one seed plays: who calls, with what limits, how hurried the world is.

import type { Limit, LimitWindow, Payer, Scope } from '../../src/task/budget.ts';
import type { CallPlan } from './callers.ts';
import type { Random } from './random.ts';
import type { Pace } from './world.ts';

/** Raised when a seed no longer means the same run; named seeds carry the version they were found with. */
export const SCENARIO_VERSION = 1;

export type Scenario = {
  readonly startMs: number;
  /** When the next hour begins. */
  readonly turnsAtMs: number;
  readonly workers: number;
  readonly calls: readonly CallPlan[];
  readonly limits: readonly { readonly scope: Scope; readonly limit: Limit }[];
  readonly pace: Pace;
  readonly rateControl: boolean;
};

const HOUR_MS = 3_600_000;
/** 2026-03-02 00:00 UTC */
const MIDNIGHT_MS = 1_772_409_600_000;
const TENANT = 'tenant';

export function createScenario(random: Random): Scenario {
  const turnsAtMs = MIDNIGHT_MS + random.pick([0, 0, 5, 13]) * HOUR_MS;
  const startMs = turnsAtMs - random.pick([400, 3_000, 9_000, 1_800_000]);
  const calls = Array.from({ length: random.pick([2, 2, 3, 3, 4, 5]) }, (_, index) =>
    createCall(random, index),
  );
  return {
    startMs,
    turnsAtMs,
    workers: 1 + random.int(3),
    calls,
    limits: createLimits(random, calls),
    pace: {
      stickiness: random.pick([0.2, 0.6, 0.9]),
      jumpiness: random.pick([0, 0.003, 0.015]),
      slowness: random.pick([0, 0.03, 0.1, 0.25]),
    },
    rateControl: random.chance(0.15),
  };
}

function createCall(random: Random, index: number): CallPlan {
  const task = random.int(3);
  const payer: Payer = {
    tenantId: TENANT,
    userId: random.pick(['ann', 'ann', 'bob']),
    ...(random.chance(0.3) ? { sessionId: 'chat' } : {}),
    taskId: `task${task}`,
    ...(random.chance(0.2) ? { shareId: `task${task}-half` } : {}),
  };
  return {
    callKey: `task${task}:run:step:${index}`,
    payer,
    maxOutputTokens: random.pick([10, 20, 20, 40]),
    onExceeded: random.pick(['refuse', 'refuse', 'refuse', 'clamp', 'wait']),
    abort: random.pick(['cancel', 'drain', 'detach']),
    startsAtMs: random.pick([0, 0, 0, 20, 1_000, 3_000]),
  };
}

function createLimits(random: Random, calls: readonly CallPlan[]): Scenario['limits'] {
  const scopes: Scope[] = [
    { kind: 'tenant', id: TENANT },
    { kind: 'user', id: 'ann' },
    ...calls.flatMap(({ payer: { taskId, sessionId, shareId } }): Scope[] => [
      ...(taskId === undefined ? [] : [{ kind: 'task', id: taskId } as const]),
      ...(sessionId === undefined ? [] : [{ kind: 'session', id: sessionId } as const]),
      ...(shareId === undefined ? [] : [{ kind: 'share', id: shareId } as const]),
    ]),
  ];
  return Array.from({ length: 1 + random.int(3) }, () => {
    const scope = random.chance(0.6) ? (scopes[random.int(2)] ?? random.pick(scopes)) : random.pick(scopes);
    const unit = random.pick(['usd', 'usd', 'tokens'] as const);
    const window: LimitWindow = random.pick(['total', 'hour', 'day']);
    // One call is held at some 32 to 92 nano-USD and 22 to 52 tokens.
    const amount = BigInt(
      unit === 'usd' ? random.pick([0, 30, 60, 100, 150, 260]) : random.pick([30, 60, 100, 160]),
    );
    return { scope, limit: { unit, window, amount, hard: random.chance(0.85), warnAt: 0.8 } };
  });
}
