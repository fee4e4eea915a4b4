// All activities of a worker, as one object; workflows import its type only.

import { type ApprovalActivityDependencies, createApprovalActivities } from './approvals.ts';
import { createModelActivities, type ModelActivityDependencies } from './model.ts';
import { createTaskActivities, type TaskActivityDependencies } from './task.ts';

export type Activities = ReturnType<typeof createActivities>;

export function createActivities(
  dependencies: ModelActivityDependencies & TaskActivityDependencies & ApprovalActivityDependencies,
) {
  return {
    ...createTaskActivities(dependencies),
    ...createModelActivities(dependencies),
    ...createApprovalActivities(dependencies),
  };
}
