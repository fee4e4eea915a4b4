// Holds as tests make them: a payer, an estimate, and the loop that hydrates what is missing.

import type { AttemptDraft, BudgetHold } from '../../src/stores/budget-gate.ts';
import type { GateHold } from '../../src/stores/gate.ts';
import type { Attempt } from '../../src/stores/ledger.ts';
import type { Redis } from '../../src/stores/redis.ts';
import type { Stores } from '../../src/stores/stores.ts';
import type { BindingLimit, Estimate, Limit, Payer, Scope } from '../../src/task/budget.ts';
import { NO_USAGE } from '../../src/task/usage.ts';

export const NANO = 1_000_000_000n;

export function estimateOf(nanoUsd: bigint, tokens = 100): Estimate {
  return { nanoUsd, tokens, inputTokens: 50, maxOutputTokens: 50 };
}

export function payerOf(n: string): Payer {
  return { tenantId: `tenant-${n}`, userId: `user-${n}`, taskId: `task-${n}` };
}

export function limitOn(
  payer: Payer,
  kind: 'user' | 'task',
  amount: bigint,
  unit: 'usd' | 'tokens' = 'usd',
): BindingLimit {
  const id = kind === 'user' ? payer.userId : (payer.taskId ?? '');
  return { unit, amount, window: 'total', hard: true, warnAt: 0.8, scope: { kind, id } };
}

/** A hard limit over all time on any scope, unless it is told otherwise. */
export function limitAt(scope: Scope, amount: bigint, change: Partial<Limit> = {}): BindingLimit {
  return { unit: 'usd', window: 'total', hard: true, warnAt: 0.8, ...change, amount, scope };
}

export type HoldOptions = {
  readonly attemptKey: string;
  readonly payer: Payer;
  readonly estimate: Estimate;
  readonly limits: readonly BindingLimit[];
};

/** One hold as `calls/admit` makes it. */
export async function holdOnce(
  stores: Stores,
  options: HoldOptions,
): Promise<Exclude<GateHold, { kind: 'missing' }>> {
  const { payer } = options;
  const { generation } = await stores.ledger.gate(payer.tenantId);
  const callKey = options.attemptKey.slice(0, options.attemptKey.lastIndexOf('#'));
  for (;;) {
    const answer = await stores.redisGate.hold({ ...options, callKey, generation, owner: 'process test' });
    if (answer.kind !== 'missing') return answer;
    for (const { scope, intervals } of answer.scopes)
      await stores.hydrate({ tenantId: payer.tenantId, scope, intervals, generation });
  }
}

/** The row of a hold that was made. */
export function attemptOf(options: HoldOptions, heldAtMs: number, generation = 1n): Attempt {
  return {
    attemptKey: options.attemptKey,
    callKey: options.attemptKey.slice(0, options.attemptKey.lastIndexOf('#')),
    heldAt: new Date(heldAtMs),
    payer: options.payer,
    stepId: 'answer',
    provider: 'simulated',
    model: 'simulated/small',
    candidate: 0,
    mode: 'redis',
    generation,
    owner: 'process test',
    estimate: options.estimate,
    priceHash: 'hash',
  };
}

/** What a gate is asked to hold. */
export function draftOf({ attemptKey, payer, estimate }: HoldOptions): AttemptDraft {
  const {
    heldAt: _,
    mode: __,
    generation: ___,
    ...draft
  } = attemptOf({ attemptKey, payer, estimate, limits: [] }, 0);
  return draft;
}

export type GateStores = Pick<Stores, 'gate' | 'ledger'>;

/** One hold at whatever gate the tenant has. */
export function hold({ gate }: GateStores, options: HoldOptions): Promise<BudgetHold> {
  return gate.hold(draftOf(options), options.limits);
}

/** A hold that the test needs. */
export async function held(stores: GateStores, options: HoldOptions): Promise<Attempt> {
  const answer = await hold(stores, options);
  if (answer.kind !== 'ok') throw new Error(`expected a hold, got ${answer.kind}`);
  return answer.attempt;
}

/** Hold, intent and mark, as calls/admit makes them; an attempt that may not be sent is voided. Undefined: not sent. */
export async function sendOnce(stores: GateStores, options: HoldOptions): Promise<Attempt | undefined> {
  const answer = await hold(stores, options);
  if (answer.kind !== 'ok') return undefined;
  const { attempt } = answer;
  if (!(await stores.ledger.intent(attempt, undefined))) {
    await stores.gate.undo(attempt);
    return undefined;
  }
  const isMarked = await stores.gate.markSent(attempt).catch(async (error: unknown) => {
    await stores.ledger.resolve(attempt, VOIDED);
    throw error;
  });
  if (isMarked) return attempt;
  await voidOnce(stores, attempt);
  return undefined;
}

const VOIDED = {
  to: 'voided',
  outcome: 'lost',
  charge: { usage: NO_USAGE, nanoUsd: 0n, source: 'none' },
} as const;

export async function sent(stores: GateStores, options: HoldOptions): Promise<Attempt> {
  const attempt = await sendOnce(stores, options);
  if (attempt === undefined) throw new Error(`${options.attemptKey} was not sent`);
  return attempt;
}

/** Settles and releases, as calls/settle does. */
export async function settleOnce(
  { ledger, gate }: GateStores,
  attempt: Attempt,
  nanoUsd: bigint,
  tokens = 0,
): Promise<void> {
  const charge = { usage: { ...NO_USAGE, inputTokens: tokens }, nanoUsd, source: 'measured' } as const;
  await ledger.settle(attempt, { outcome: 'ok', charge }, undefined);
  await gate.release(attempt, 'settled', { nanoUsd, tokens });
}

export async function voidOnce({ ledger, gate }: GateStores, attempt: Attempt): Promise<void> {
  await ledger.resolve(attempt, VOIDED);
  await gate.release(attempt, 'void', { nanoUsd: 0n, tokens: 0 });
}

/** Redis as one process sees it that can be cut off from it. */
export function cuttable(redis: Redis): Redis & { isCut: boolean } {
  const away = () => Promise.reject(new Error('connection is closed'));
  const cut: Redis & { isCut: boolean } = {
    ...redis,
    isCut: false,
    run: (...args) => (cut.isCut ? away() : redis.run(...args)),
    command: (work) => (cut.isCut ? away() : redis.command(work)),
    runId: () => (cut.isCut ? away() : redis.runId()),
    nowMs: () => (cut.isCut ? away() : redis.nowMs()),
    ping: () => (cut.isCut ? away() : redis.ping()),
    connectedForMs: () => (cut.isCut ? 0 : redis.connectedForMs()),
  };
  return cut;
}
