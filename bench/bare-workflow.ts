// What a governed task is held against: a workflow with one activity that does nothing. Runs in the sandbox.

import { proxyActivities } from '@temporalio/workflow';
import type { bareActivities } from './bare-worker.ts';

export async function bareTask(input: unknown): Promise<string> {
  const { nothing } = proxyActivities<typeof bareActivities>({ startToCloseTimeout: '30s' });
  return nothing(input);
}
