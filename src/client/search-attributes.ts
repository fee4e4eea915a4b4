// The search attributes that Weir's tasks carry: their names and kinds, and their registration where the namespace lacks them.

import type { Connection } from '@temporalio/client';
import {
  defineSearchAttributeKey,
  type SearchAttributePair,
  type TypedSearchAttributes,
} from '@temporalio/common';
import type { TaskInput } from '../task/input.ts';

/** Indexed value types of Temporal's API: 2 keyword, 3 int, 4 double. */
const TYPES = {
  WeirTenant: 2,
  WeirUser: 2,
  WeirSession: 2,
  WeirPriority: 2,
  WeirStrategy: 2,
  WeirStatus: 2,
  WeirCostUsd: 4,
  WeirTokens: 3,
} as const;

type Keyword = {
  [Name in keyof typeof TYPES]: (typeof TYPES)[Name] extends 2 ? Name : never;
}[keyof typeof TYPES];

/**
 * Registers what is missing. False when the namespace does not know them all and they cannot be added: tasks then run without.
 */
export async function ensureSearchAttributes(connection: Connection, namespace: string): Promise<boolean> {
  const missing = async () => {
    const { customAttributes } = await connection.operatorService.listSearchAttributes({ namespace });
    return Object.entries(TYPES).filter(([name]) => customAttributes?.[name] === undefined);
  };
  const lacking = await missing();
  if (lacking.length === 0) return true;
  try {
    await connection.operatorService.addSearchAttributes({
      namespace,
      searchAttributes: Object.fromEntries(lacking),
    });
  } catch {
    // Not allowed, or another process added them at this moment: what is there now decides.
    return (await missing()).length === 0;
  }
  return true;
}

/** Attributes of a task at its start. */
export function startAttributes(input: TaskInput, strategy: string): SearchAttributePair[] {
  const pair = (name: Keyword, value: string) => ({ key: defineSearchAttributeKey(name, 'KEYWORD'), value });
  return [
    pair('WeirTenant', input.tenantId),
    pair('WeirUser', input.userId),
    ...(input.sessionId === undefined ? [] : [pair('WeirSession', input.sessionId)]),
    pair('WeirPriority', input.priority),
    pair('WeirStrategy', strategy),
    pair('WeirStatus', 'running'),
  ];
}

export type GivenAttributes = {
  readonly tenantId?: string;
  readonly userId?: string;
  readonly sessionId?: string;
  readonly priority?: string;
  readonly strategy?: string;
};

/** What a task's attributes tell of its input, for tasks of which there is no row. */
export function givenAttributes(attributes: TypedSearchAttributes): GivenAttributes {
  const names = {
    tenantId: 'WeirTenant',
    userId: 'WeirUser',
    sessionId: 'WeirSession',
    priority: 'WeirPriority',
    strategy: 'WeirStrategy',
  } as const satisfies Record<keyof GivenAttributes, Keyword>;
  return Object.fromEntries(
    Object.entries(names).flatMap(([field, name]) => {
      const value = attributes.get(defineSearchAttributeKey(name, 'KEYWORD'));
      return value === undefined ? [] : [[field, value]];
    }),
  );
}
