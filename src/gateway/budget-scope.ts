// How the routes of budgets name a scope: its kind and id in the path, its tenant beside them.

import { z } from 'zod';
import { SCOPE_KINDS, type Scope } from '../task/budget.ts';
import { invalidRequest } from './errors.ts';
import { id } from './schemas.ts';

export const DEFAULT_TENANT = 'default';

export const scopeKind = z.enum(SCOPE_KINDS, { error: `one of ${SCOPE_KINDS.join(', ')}` });
export const budgetParams = z.object({ scope: scopeKind, id });
export const budgetQuery = z.strictObject({
  tenantId: id.optional().describe('Left out: `default`, and for a tenant its own id'),
});

type ScopeRequest = {
  readonly params: z.infer<typeof budgetParams>;
  readonly query: z.infer<typeof budgetQuery>;
};

/** A tenant is its own: limits of one that were kept under another would bind nobody. @throws HttpProblem 400 */
export function scopeOf({ params: { scope, id: scopeId }, query }: ScopeRequest): [string, Scope] {
  const tenantId = query.tenantId ?? (scope === 'tenant' ? scopeId : DEFAULT_TENANT);
  if (scope === 'tenant' && tenantId !== scopeId)
    throw invalidRequest([
      { path: 'tenantId', expected: `"${scopeId}", or nothing`, got: JSON.stringify(tenantId) },
    ]);
  return [tenantId, { kind: scope, id: scopeId }];
}
