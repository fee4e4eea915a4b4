// A command's connection to Temporal. Whoever opens here gets it closed again.

import { Client, Connection } from '@temporalio/client';
import { ensureSearchAttributes } from '../client/search-attributes.ts';
import { createTaskClient, type TaskClient } from '../client/task-client.ts';
import { type CliEnvironment, loadConfig, planOfTenant } from '../config.ts';
import { type AddressFlags, findAddresses, requireTemporal } from './addresses.ts';
import { CliError } from './fault.ts';

const CONNECT_MS = 5_000;
const RPC_TIMEOUT_MS = 15_000;

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
      fairnessWeightOf: (tenantId) => planOfTenant(config.limits.rates, tenantId).fairnessWeight,
      rpcTimeoutMs: RPC_TIMEOUT_MS,
    });
    return await work({ client, tasks });
  } finally {
    await connection.close();
  }
}
