// Calls as the ledger knows them, made without sending anything: for what reads the ledger.

import type { Attempt, Charge } from '../../src/stores/ledger.ts';
import type { Payer } from '../../src/task/budget.ts';
import { NO_USAGE, type Usage } from '../../src/task/usage.ts';
import { attemptOf, estimateOf } from './holds.ts';
import type { TestStores } from './stores.ts';

/** Each bucket has a digit of its own. */
export const USAGE: Usage = {
  inputTokens: 1,
  cacheReadTokens: 10,
  cacheWrite5mTokens: 100,
  cacheWrite1hTokens: 1_000,
  outputTokens: 10_000,
  reasoningTokens: 4_000,
};
export const NOTHING: Charge = { usage: NO_USAGE, nanoUsd: 0n, source: 'none' };
export const ANSWER = { status: 'completed', text: 'x', finishReason: 'stop' } as const;

/** `of` answers the stores when they are needed: tests open them in a hook. */
export function createBookedCalls(of: () => TestStores) {
  let calls = 0;

  async function started(payer: Payer, change: Partial<Attempt> = {}): Promise<Attempt> {
    calls += 1;
    const held = {
      attemptKey: `c${calls}:run:answer:1#0.1.1.0`,
      payer,
      estimate: estimateOf(500n, 40),
      limits: [],
    };
    const attempt = { ...attemptOf(held, Date.now()), ...change };
    const { ledger } = of().stores;
    await ledger.gate(payer.tenantId);
    await ledger.intent(attempt, undefined);
    return attempt;
  }

  async function charged(
    payer: Payer,
    nanoUsd: bigint,
    change: Partial<Attempt> = {},
    usage = USAGE,
  ): Promise<Attempt> {
    const attempt = await started(payer, change);
    const charge = { usage, nanoUsd, source: 'measured' } as const;
    await of().stores.ledger.settle(attempt, { outcome: 'ok', charge, result: ANSWER }, undefined);
    return attempt;
  }

  return { started, charged };
}
