// The worker of the bare workflow: one process with the slots of one of Weir's queues, and nothing else in it.

import { NativeConnection, Worker } from '@temporalio/worker';
import { loadConfig } from '../src/config.ts';

export const BARE_QUEUE = 'bare';

export const bareActivities = {
  async nothing(_input: unknown): Promise<string> {
    return 'the answer';
  },
};

async function main(): Promise<void> {
  const { temporal, worker } = loadConfig();
  const connection = await NativeConnection.connect(temporal.connection);
  const bare = await Worker.create({
    connection,
    namespace: temporal.namespace,
    taskQueue: BARE_QUEUE,
    workflowsPath: new URL('./bare-workflow.ts', import.meta.url).pathname,
    activities: bareActivities,
    maxConcurrentActivityTaskExecutions: worker.activities.normal,
    maxConcurrentWorkflowTaskExecutions: worker.workflows.normal,
  });
  process.stdout.write('"bench worker is ready"\n');
  await bare.run();
  await connection.close();
}

if (process.argv[1] === new URL(import.meta.url).pathname) await main();
