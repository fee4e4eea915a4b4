// `weir raise`: more budget for a running task.

import type { CliEnvironment } from '../config.ts';
import { parseUsd } from '../task/money.ts';
import type { AddressFlags } from './addresses.ts';
import { nameOfUser } from './approve.ts';
import { openGateway } from './connect.ts';
import { CliError } from './fault.ts';
import { say } from './print.ts';

export type RaiseOptions = AddressFlags & {
  readonly usd?: string;
  readonly tokens?: string;
  readonly by?: string;
  readonly json?: boolean;
};

/** @throws CliError naming each amount that is none */
export async function runRaise(
  taskId: string,
  options: RaiseOptions,
  environment: CliEnvironment,
): Promise<void> {
  const { usd, tokens, json } = options;
  const faults: string[] = [];
  if (usd === undefined && tokens === undefined) faults.push('give --usd, --tokens or both');
  if (usd !== undefined && parseUsd(usd) === undefined)
    faults.push(`--usd is an amount such as 5.00, got "${usd}"`);
  if (tokens !== undefined && !/^[1-9]\d{0,8}$/.test(tokens))
    faults.push(`--tokens is a whole number of at least 1, got "${tokens}"`);
  if (faults.length > 0) throw new CliError(faults.join('\n'));
  const raised = await openGateway(options, environment).raiseBudget(taskId, {
    ...(usd === undefined ? {} : { usd }),
    ...(tokens === undefined ? {} : { tokens: Number(tokens) }),
    by: options.by ?? nameOfUser(),
  });
  if (json === true) say(JSON.stringify(raised, null, 2));
  else
    for (const { unit, window, amount } of raised.limits)
      say(`${taskId} may now spend ${amount} ${unit} (${window})`);
}
