// A client in a process of its own: starts many tasks at once and ends. Its one argument is JSON, see `ClientOrder`.

import { Client, Connection } from '@temporalio/client';
import { createTaskClient } from '../../src/client/task-client.ts';

export type ClientOrder = {
  readonly address: string;
  readonly queuePrefix: string;
  readonly taskIds: readonly string[];
  readonly input: unknown;
};

const AT_ONCE = 25;

async function main(): Promise<void> {
  const { address, queuePrefix, taskIds, input } = JSON.parse(process.argv[2] ?? '') as ClientOrder;
  const connection = await Connection.connect({ address });
  const temporal = new Client({ connection });
  const tasks = createTaskClient({ temporal, queuePrefix, priorityQueues: true, searchAttributes: true });
  const left = [...taskIds];
  const startAll = async () => {
    for (let taskId = left.shift(); taskId !== undefined; taskId = left.shift())
      await tasks.start(input, taskId);
  };
  await Promise.all(Array.from({ length: AT_ONCE }, startAll));
  await connection.close();
}

await main();
