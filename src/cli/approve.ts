// `weir approve`: what tasks ask, and the answer.

import { userInfo } from 'node:os';
import type { ApprovalView } from '../client/gateway-client.ts';
import type { CliEnvironment } from '../config.ts';
import { parseUsd } from '../task/money.ts';
import type { AddressFlags } from './addresses.ts';
import { openGateway } from './connect.ts';
import { CliError } from './fault.ts';
import { type Column, dim, printable, say, table } from './print.ts';

export type ApproveOptions = AddressFlags & {
  readonly reject?: boolean;
  readonly raiseUsd?: string;
  readonly comment?: string;
  readonly by?: string;
  readonly json?: boolean;
};

/** Decides about one approval, or lists those that wait. @throws CliError when what was asked for fits no approval */
export async function runApprove(
  approvalId: string | undefined,
  options: ApproveOptions,
  environment: CliEnvironment,
): Promise<void> {
  const { reject, raiseUsd, comment, json } = options;
  if (approvalId === undefined) {
    if (reject === true || raiseUsd !== undefined || comment !== undefined)
      throw new CliError('give the id of an approval to decide about it (without one they are listed)');
    const { approvals } = await openGateway(options, environment).approvals.list();
    if (json === true) for (const approval of approvals) say(JSON.stringify(approval));
    else showPending(approvals);
    return;
  }
  if (raiseUsd !== undefined && parseUsd(raiseUsd) === undefined)
    throw new CliError(`--raise-usd is an amount such as 5.00, got "${raiseUsd}"`);
  if (raiseUsd !== undefined && reject === true)
    throw new CliError('give one of --reject and --raise-usd: what is rejected raises no limit');
  const decided = await openGateway(options, environment).approvals.decide(approvalId, {
    decision: reject === true ? 'reject' : 'approve',
    ...(raiseUsd === undefined ? {} : { raiseUsd }),
    ...(comment === undefined ? {} : { comment }),
    by: options.by ?? nameOfUser(),
  });
  if (json === true) say(JSON.stringify(decided, null, 2));
  else say(inWords(decided));
}

/** Who sits here, for the record of a decision. */
export function nameOfUser(): string {
  try {
    return userInfo().username;
  } catch {
    return 'cli'; // a container may run as a number that has no name
  }
}

function inWords({ taskId, status, exceeded, raiseUsd }: ApprovalView): string {
  const raise =
    raiseUsd === undefined
      ? ''
      : `, and the limit of ${exceeded.scope} ${exceeded.id} is raised by $${raiseUsd} for it`;
  return printable(`${taskId} is ${status}${raise}`);
}

function showPending(approvals: readonly ApprovalView[]): void {
  if (approvals.length === 0) {
    say(dim('nothing waits for an approval'));
    return;
  }
  const columns: readonly Column[] = [
    { title: 'approval' },
    { title: 'task' },
    { title: 'user' },
    { title: 'limit' },
    ...['amount', 'settled', 'held', 'needed'].map((title) => ({ title, right: true })),
    { title: 'until' },
    { title: 'then' },
  ];
  table(
    columns,
    approvals.map(({ approvalId, taskId, userId, exceeded, expiresAt, onTimeout }) => [
      approvalId,
      taskId,
      userId,
      `${exceeded.scope} ${exceeded.id}, ${exceeded.unit} (${exceeded.window})`,
      exceeded.limit,
      exceeded.settled,
      exceeded.held,
      exceeded.needed,
      expiresAt.slice(0, 19).replace('T', ' '),
      onTimeout,
    ]),
  );
}
