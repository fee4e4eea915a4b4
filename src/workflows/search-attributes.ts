// Search attributes of a task: our clients set them at start; here only what is missing, and the figures at the end.

import { defineSearchAttributeKey, type SearchAttributeUpdatePair } from '@temporalio/common';
import { upsertSearchAttributes, workflowInfo } from '@temporalio/workflow';
import type { TaskInput } from '../task/input.ts';

const keys = {
  tenant: defineSearchAttributeKey('WeirTenant', 'KEYWORD'),
  user: defineSearchAttributeKey('WeirUser', 'KEYWORD'),
  session: defineSearchAttributeKey('WeirSession', 'KEYWORD'),
  priority: defineSearchAttributeKey('WeirPriority', 'KEYWORD'),
  strategy: defineSearchAttributeKey('WeirStrategy', 'KEYWORD'),
  status: defineSearchAttributeKey('WeirStatus', 'KEYWORD'),
  costUsd: defineSearchAttributeKey('WeirCostUsd', 'DOUBLE'),
  tokens: defineSearchAttributeKey('WeirTokens', 'INT'),
};

/** For tasks started by a plain client. */
export function upsertMissing(input: TaskInput, strategy: string): void {
  const present = workflowInfo().typedSearchAttributes;
  const wanted: SearchAttributeUpdatePair[] = [
    { key: keys.tenant, value: input.tenantId },
    { key: keys.user, value: input.userId },
    ...(input.sessionId === undefined ? [] : [{ key: keys.session, value: input.sessionId }]),
    { key: keys.priority, value: input.priority },
    { key: keys.strategy, value: strategy },
    { key: keys.status, value: 'running' },
  ];
  const missing = wanted.filter((pair) => present.get(pair.key) === undefined);
  if (missing.length > 0) upsertSearchAttributes(missing);
}

export function upsertEnd(end: { status: string; costUsd: string; tokens: number }): void {
  upsertSearchAttributes([
    { key: keys.status, value: end.status },
    { key: keys.costUsd, value: Number(end.costUsd) },
    { key: keys.tokens, value: end.tokens },
  ]);
}
