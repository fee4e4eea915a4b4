// Holds as tests make them: a payer, an estimate, and the loop that hydrates what is missing.

import type { GateHold } from '../../src/stores/gate.ts';
import type { Attempt } from '../../src/stores/ledger.ts';
import type { Stores } from '../../src/stores/stores.ts';
import type { BindingLimit, Estimate, Payer } from '../../src/task/budget.ts';

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
