// Schemas of approvals and raises. What an amount or a name may be is decided by task/approval.ts alone, where the task runs.

import { z } from 'zod';
import type { ApprovalList, ApprovalView, DecisionInput, RaisedView, RaiseInput } from '../client/wire.ts';
import { APPROVAL_STATUSES, DECISIONS } from '../task/approval.ts';

/** Who decides where the request does not say. */
export const BY_API = 'api';

const unit = z.enum(['usd', 'tokens']);
const amount = z.union([z.string(), z.number()]).describe('USD, above 0, with at most 9 decimals');
const by = z.string().min(1).max(128).exactOptional().describe(`For the record; left out: ${BY_API}`);

export const approval: z.ZodType<ApprovalView> = z
  .object({
    approvalId: z.string(),
    taskId: z.string(),
    tenantId: z.string(),
    userId: z.string(),
    status: z.enum(APPROVAL_STATUSES),
    exceeded: z
      .object({
        type: z.literal('BudgetExceeded'),
        scope: z.string(),
        id: z.string(),
        unit,
        window: z.string(),
        limit: z.string(),
        settled: z.string(),
        held: z.string(),
        needed: z.string(),
        resetsAt: z.string().exactOptional(),
      })
      .describe('The limit that the task asks to pass, as it stood'),
    onTimeout: z.enum(['reject', 'approve']),
    requestedAt: z.string(),
    expiresAt: z.string(),
    decidedAt: z.string().exactOptional(),
    decidedBy: z.string().exactOptional(),
    raiseUsd: z.string().exactOptional().describe('What the limit was raised by, for this task alone'),
    comment: z.string().exactOptional(),
  })
  .meta({ id: 'Approval' });

export const approvalList: z.ZodType<ApprovalList> = z
  .object({ approvals: z.array(approval) })
  .meta({ id: 'ApprovalList' });

export const decisionInput: z.ZodType<DecisionInput> = z
  .strictObject({
    decision: z.enum(DECISIONS),
    raiseUsd: amount.exactOptional().describe('Raises the limit by so much, for this task alone'),
    comment: z.string().min(1).max(500).exactOptional(),
    by,
  })
  .meta({ id: 'DecisionInput' });

export const raiseInput: z.ZodType<RaiseInput> = z
  .strictObject({
    usd: amount.exactOptional(),
    tokens: z.number().int().min(1).exactOptional(),
    by,
  })
  .meta({ id: 'RaiseInput' });

export const raised: z.ZodType<RaisedView> = z
  .object({
    taskId: z.string(),
    limits: z.array(z.object({ unit, window: z.string(), amount: z.string() })),
  })
  .meta({ id: 'Raised' });
