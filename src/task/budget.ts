// Words of the budget: who pays, what limits look like, what a hold answers. Pure vocabulary.

/** Scopes whose limits somebody may set. */
export const SCOPE_KINDS = ['tenant', 'user', 'session', 'task'] as const;
export type ScopeKind = (typeof SCOPE_KINDS)[number];

export const LIMIT_WINDOWS = ['total', 'hour', 'day', 'week', 'month'] as const;
export type LimitWindow = (typeof LIMIT_WINDOWS)[number];

export const EXCEEDED_POLICIES = ['refuse', 'clamp', 'degrade', 'wait', 'ask'] as const;
export type ExceededPolicy = (typeof EXCEEDED_POLICIES)[number];

/** A limit of one scope. `amount` is nano-USD or tokens, by `unit`. */
export type Limit = {
  readonly unit: 'usd' | 'tokens';
  readonly window: LimitWindow;
  readonly amount: bigint;
  /** False: passing it slows down and is told, and refuses nobody. */
  readonly hard: boolean;
  readonly warnAt: number;
  /** IANA zone of the window; absent: the configured one. */
  readonly zone?: string;
};

/** `share` is a part of a task's budget that was given to one of its parallel steps. */
export type Scope = { readonly kind: ScopeKind | 'share'; readonly id: string };

/** Everybody who pays for a call. */
export type Payer = {
  readonly tenantId: string;
  readonly userId: string;
  readonly sessionId?: string | undefined;
  readonly taskId?: string | undefined;
  readonly shareId?: string | undefined;
};

/** A limit together with the scope it belongs to; grants for the payer's task are in its amount. */
export type BindingLimit = Limit & { readonly scope: Scope };

/** What one call may take at most: an upper bound, in nano-USD and tokens. */
export type Estimate = {
  readonly nanoUsd: bigint;
  readonly tokens: number;
  readonly inputTokens: number;
  readonly maxOutputTokens: number;
};

/** In the name of every budget, so that who waits for one is found by it. */
export const BUDGET_WORDS = 'budget of ';

/** The name of a scope's budget, as waits, timers and messages show it. */
export function toBudgetName(scope: { readonly scope: string; readonly id: string }): string {
  return `${BUDGET_WORDS}${scope.scope} ${scope.id}`;
}

/** The scopes of a payer in the one order in which they are locked and listed. */
export function scopesOf(payer: Payer): readonly Scope[] {
  return [
    { kind: 'tenant', id: payer.tenantId },
    { kind: 'user', id: payer.userId },
    ...(payer.sessionId === undefined ? [] : [{ kind: 'session', id: payer.sessionId } as const]),
    ...(payer.taskId === undefined ? [] : [{ kind: 'task', id: payer.taskId } as const]),
    ...(payer.shareId === undefined ? [] : [{ kind: 'share', id: payer.shareId } as const]),
  ];
}
