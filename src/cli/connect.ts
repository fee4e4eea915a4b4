// Opens the two clients of a command: the gateway's, and Temporal's where tasks are started or stopped. Whoever opens here gets it
// closed again.

import { Client, Connection } from '@temporalio/client';
import { createGatewayClient, type GatewayClient } from '../client/gateway-client.ts';
import { ensureSearchAttributes } from '../client/search-attributes.ts';
import { createTaskClient, type TaskClient } from '../client/task-client.ts';
import { type CliEnvironment, loadConfig } from '../config.ts';
import { isEnded } from '../task/status.ts';
import {
  type AddressFlags,
  findAddresses,
  requireAny,
  requireGateway,
  requireTemporal,
} from './addresses.ts';
import { CliError } from './fault.ts';

const CONNECT_MS = 5_000;
const RPC_TIMEOUT_MS = 15_000;

/** The gateway's client alone. @throws CliError when its address is not known */
export function openGateway(flags: AddressFlags, environment: CliEnvironment): GatewayClient {
  return createGatewayClient(requireGateway(findAddresses(flags, environment), environment));
}

/** What a command needs to start and stop tasks, whichever way in there is. */
export type TaskDoor = {
  /** Answers the id once the task was accepted. @throws InvalidTaskError · GatewayError · TaskExistsError */
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

/** A connection to Temporal for as long as the work takes. @throws CliError when it is not known or does not answer */
export async function withTemporal<Result>(
  flags: AddressFlags,
  environment: CliEnvironment,
  work: (temporal: { readonly client: Client; readonly tasks: TaskClient }) => Promise<Result>,
): Promise<Result> {
  const found = requireTemporal(findAddresses(flags, environment), environment);
  const config = loadConfig({ env: found.environment });
  const { connection: options, namespace } = config.temporal;
  const connection = await Connection.connect({ ...options, connectTimeout: CONNECT_MS }).catch(
    (error: unknown) => {
      throw new CliError(
        `no Temporal server answers at ${options.address}: is it running, and is this its gRPC address?`,
        error,
      );
    },
  );
  try {
    const client = new Client({ connection, namespace });
    const searchAttributes = await ensureSearchAttributes(connection, namespace).catch((error: unknown) => {
      throw new CliError(
        `Temporal at ${options.address} refused: ${error instanceof Error ? error.message : error}`,
        error,
      );
    });
    const tasks = createTaskClient({
      temporal: client,
      queuePrefix: config.temporal.queuePrefix,
      priorityQueues: config.worker.priorityQueues,
      searchAttributes,
      rpcTimeoutMs: RPC_TIMEOUT_MS,
    });
    return await work({ client, tasks });
  } finally {
    await connection.close();
  }
}
