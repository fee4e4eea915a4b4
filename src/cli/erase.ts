// `weir erase`: removes what a user's or a tenant's tasks were asked and what was answered. What they cost stays.

import type { CliEnvironment } from '../config.ts';
import type { AddressFlags } from './addresses.ts';
import { openGateway } from './connect.ts';
import { CliError } from './fault.ts';
import { say } from './print.ts';

export type EraseOptions = AddressFlags & {
  readonly user?: string;
  readonly tenant?: string;
  readonly yes?: boolean;
  readonly json?: boolean;
};

const DEFAULT_TENANT = 'default';

/** Answers the exit code: 1 when tasks are still under way, whose texts stay. */
export async function runErase(options: EraseOptions, environment: CliEnvironment): Promise<number> {
  const { user, tenant = DEFAULT_TENANT, yes, json } = options;
  if (user === undefined && options.tenant === undefined)
    throw new CliError('name whose texts to erase: --user, or --tenant for all of its users');
  const whose = user === undefined ? `all users of tenant ${tenant}` : `user ${user} of tenant ${tenant}`;
  if (yes !== true) throw new CliError(`this erases the texts of ${whose} for good: say --yes`);
  const erased = await openGateway(options, environment).eraseTexts(tenant, user);
  if (json === true) say(JSON.stringify(erased, null, 2));
  else {
    say(
      `erased the texts of ${erased.tasks} tasks, ${erased.events} events and ${erased.calls} direct calls of ${whose}`,
    );
    if (erased.running > 0)
      say(`${erased.running} tasks are still under way and keep theirs: erase again when they have ended`);
  }
  return erased.running > 0 ? 1 : 0;
}
