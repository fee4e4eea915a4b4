// States of a task as its row, its search attribute and every API show them. Pure vocabulary.

export const TASK_STATUSES = [
  'queued',
  'running',
  'waiting',
  'paused',
  'completed',
  'partial',
  'failed',
  'cancelled',
] as const;

export type TaskStatus = (typeof TASK_STATUSES)[number];

const ENDED_STATUSES = [
  'completed',
  'partial',
  'failed',
  'cancelled',
] as const satisfies readonly TaskStatus[];

export type EndedStatus = (typeof ENDED_STATUSES)[number];

export function isEnded(status: TaskStatus): status is EndedStatus {
  return ENDED_STATUSES.some((ended) => ended === status);
}
