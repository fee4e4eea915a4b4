// Routes of approvals: what tasks ask, and the answer. The task itself takes the decision and records it; nothing is decided here.

import { z } from 'zod';
import type { ApprovalView } from '../client/wire.ts';
import type { ApprovalRow } from '../stores/approvals.ts';
import { APPROVAL_STATUSES, parseDecision } from '../task/approval.ts';
import { formatUsd } from '../task/money.ts';
import { approval, approvalList, BY_API, decisionInput } from './approval-schemas.ts';
import { conflict, invalidRequest, notFound } from './errors.ts';
import type { App, RouteParts } from './parts.ts';
import { id, problemAnswer } from './schemas.ts';

const params = z.object({ approvalId: z.string().min(1).max(256) });

export function registerApprovals(app: App, parts: RouteParts): void {
  const { approvals } = parts.stores;
  const find = async (approvalId: string): Promise<ApprovalRow> => {
    const row = await approvals.get(approvalId);
    if (row === undefined) throw notFound(`there is no approval ${approvalId}`);
    return row;
  };

  app.get(
    '/approvals',
    {
      schema: {
        tags: ['approvals'],
        summary: 'What tasks ask: at most 100, those that wait oldest first, all others newest first',
        querystring: z.strictObject({
          status: z.enum(APPROVAL_STATUSES).optional().describe('Left out: pending'),
          taskId: id.optional(),
          tenantId: id.optional(),
        }),
        response: { 200: approvalList, default: problemAnswer },
      },
    },
    async ({ query: { status = 'pending', taskId, tenantId } }) => ({
      approvals: (await approvals.list({ status, taskId, tenantId })).map(toApprovalView),
    }),
  );

  app.get(
    '/approvals/:approvalId',
    {
      schema: {
        tags: ['approvals'],
        summary: 'One approval',
        params,
        response: { 200: approval, default: problemAnswer },
      },
    },
    async (request) => toApprovalView(await find(request.params.approvalId)),
  );

  app.post(
    '/approvals/:approvalId',
    {
      schema: {
        tags: ['approvals'],
        summary: 'Decide, once',
        description: '409 when somebody else, time or the end of the task has decided.',
        params,
        body: decisionInput,
        response: { 200: approval, default: problemAnswer },
      },
    },
    async (request) => {
      const { approvalId } = request.params;
      const row = await find(approvalId);
      const decision = { by: BY_API, ...request.body, approvalId };
      const parsed = parseDecision(decision, row.exceeded);
      if (parsed.kind === 'invalid') throw invalidRequest(parsed.faults);
      if (row.status !== 'pending')
        throw conflict('AlreadyDecided', `approval ${approvalId} is ${row.status}`);
      await parts.client.decideApproval(row.taskId, decision);
      return toApprovalView(await find(approvalId));
    },
  );
}

function toApprovalView(row: ApprovalRow): ApprovalView {
  const { approvalId, taskId, tenantId, userId, status, exceeded, onTimeout } = row;
  return {
    ...{ approvalId, taskId, tenantId, userId, status, exceeded, onTimeout },
    requestedAt: row.requestedAt.toISOString(),
    expiresAt: row.expiresAt.toISOString(),
    ...(row.decidedAt === undefined ? {} : { decidedAt: row.decidedAt.toISOString() }),
    ...(row.decidedBy === undefined ? {} : { decidedBy: row.decidedBy }),
    ...(row.raiseNanoUsd === undefined ? {} : { raiseUsd: formatUsd(row.raiseNanoUsd) }),
    ...(row.comment === undefined ? {} : { comment: row.comment }),
  };
}
