// Admission to budgets, whichever gate a tenant has: the one in Redis, rebuilt from Postgres where it does not know a counter. It holds
// all limits of a call or none; nothing else in the process takes holds.

import type { BindingLimit } from '../task/budget.ts';
import type { Gate, GateHold, GateRefusal, LimitUse } from './gate.ts';
import type { Hydrate } from './hydrate.ts';
import type { Attempt, Ledger } from './ledger.ts';

/** An attempt that has no hold yet. */
export type AttemptDraft = Omit<Attempt, 'heldAt' | 'mode' | 'generation'>;

export type BudgetHold =
  | { readonly kind: 'ok'; readonly attempt: Attempt; readonly uses: readonly LimitUse[] }
  /** This very attempt is over. */
  | { readonly kind: 'done' }
  | GateRefusal;

export type BudgetGate = ReturnType<typeof createBudgetGate>;

export function createBudgetGate(parts: {
  readonly redis: Gate;
  readonly hydrate: Hydrate;
  readonly ledger: Pick<Ledger, 'gate'>;
}) {
  const { redis } = parts;
  return {
    ...redis,

    /** Holds an attempt's estimate on every scope of its payer. Throws when a store is down. */
    hold: (draft: AttemptDraft, limits: readonly BindingLimit[]): Promise<BudgetHold> =>
      hold(parts, draft, limits),

    /** True when the attempt may send now. False: its hold is gone and its row must be voided. */
    markSent: (attempt: Attempt): Promise<boolean> => redis.markSent(attempt, attempt.generation),
  };
}

async function hold(
  { redis, hydrate, ledger }: Parameters<typeof createBudgetGate>[0],
  draft: AttemptDraft,
  limits: readonly BindingLimit[],
): Promise<BudgetHold> {
  const { tenantId } = draft.payer;
  const { generation } = await ledger.gate(tenantId);
  for (;;) {
    const answer: GateHold = await redis.hold({ ...draft, generation, limits });
    switch (answer.kind) {
      case 'ok': {
        const attempt = { ...draft, mode: 'redis', generation, heldAt: new Date(answer.heldAtMs) } as const;
        return { kind: 'ok', attempt, uses: answer.uses };
      }
      case 'missing':
        for (const { scope, intervals } of answer.scopes)
          await hydrate({ tenantId, scope, intervals, generation });
        break;
      case 'done':
      case 'refused':
      case 'crowded':
        return answer;
      default:
        answer satisfies never;
    }
  }
}
