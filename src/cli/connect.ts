// The ways in of a command: the gateway's client, and a door for starting and stopping tasks, over Temporal where that is known.

import { createGatewayClient, type GatewayClient } from '../client/gateway-client.ts';
import type { CliEnvironment } from '../config.ts';
import { isEnded } from '../task/status.ts';
import { type AddressFlags, findAddresses, requireAny, requireGateway } from './addresses.ts';

/** The gateway's client alone. @throws CliError when its address is not known */
export function openGateway(flags: AddressFlags, environment: CliEnvironment): GatewayClient {
  return createGatewayClient(requireGateway(findAddresses(flags, environment), environment));
}

/** What a command needs to start and stop tasks, whichever way in there is. */
export type TaskDoor = {
  /** Answers the id once the task was accepted. @throws GatewayError · TaskExistsError */
  readonly start: (input: unknown, taskId: string | undefined) => Promise<string>;
  /** False when there is no such task running. */
  readonly cancel: (taskId: string) => Promise<boolean>;
};

/** Over Temporal where its address is known, else over the gateway. @throws CliError when neither is */
export async function withTaskDoor<Result>(
  flags: AddressFlags,
  environment: CliEnvironment,
  work: (door: TaskDoor) => Promise<Result>,
): Promise<Result> {
  const addresses = findAddresses(flags, environment);
  requireAny(addresses, environment);
  if (addresses.temporal === undefined) return work(gatewayDoor(openGateway(flags, environment)));
  // Temporal's library takes half a second to load.
  const { withTemporal } = await import('./temporal.ts');
  return withTemporal(flags, environment, async ({ tasks }) =>
    work({
      start: async (input, taskId) => (await tasks.start(input, taskId)).taskId,
      // Temporal takes a cancellation of a closed workflow without a word.
      cancel: async (taskId) => (await tasks.describe(taskId))?.status === 'running' && tasks.cancel(taskId),
    }),
  );
}

function gatewayDoor(gateway: GatewayClient): TaskDoor {
  return {
    start: async (input, taskId) => (await gateway.submit(input, { taskId })).taskId,
    cancel: async (taskId) => {
      if (isEnded((await gateway.get(taskId)).status)) return false;
      await gateway.cancel(taskId);
      return true;
    },
  };
}
