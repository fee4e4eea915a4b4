// Events of a task: one envelope, a closed list of types, and the cursor by which a reader resumes. Pure vocabulary.

export const EVENT_TYPES = [
  'task_started',
  'task_paused',
  'task_resumed',
  'task_completed',
  'task_failed',
  'task_cancelled',
  'plan_ready',
  'step_started',
  'step_completed',
  'step_failed',
  'call_started',
  'call_delta',
  'call_completed',
  'call_snapshot',
  'attempt_reset',
  'fallback',
  'tool_started',
  'tool_completed',
  'tool_failed',
  'rate_wait',
  'backpressure',
  'budget_threshold',
  'budget_refused',
  'approval_requested',
  'approval_decided',
  'degraded',
  'reset',
  'stream_end',
] as const;

export type EventType = (typeof EVENT_TYPES)[number];

/** What a publisher knows of an event; `id` makes a repeat harmless. */
export type EventDraft = {
  readonly id: string;
  readonly type: EventType;
  readonly stepId?: string;
  readonly callKey?: string;
  readonly attempt?: string;
  readonly message?: string;
  readonly data?: Readonly<Record<string, unknown>>;
};

/** What a reader gets. `seq` is contiguous per task, `epoch` rises when that cannot be proven; `at` is ISO 8601 in UTC. */
export type TaskEvent = Omit<EventDraft, 'id'> & {
  readonly taskId: string;
  readonly seq: number;
  readonly epoch: number;
  readonly at: string;
};

export type Cursor = { readonly epoch: number; readonly seq: number };

/** `<epoch>-<seq>`, as SSE's `id:` carries it. */
export function formatCursor(cursor: Cursor): string {
  return `${cursor.epoch}-${cursor.seq}`;
}

/** Reads `<epoch>-<seq>` as it was written; anything else, negative, with leading zeros or beyond 2^53 is undefined. */
export function parseCursor(text: string): Cursor | undefined {
  const match = /^(0|[1-9]\d{0,9})-(0|[1-9]\d{0,14})$/.exec(text);
  if (match === null) return undefined;
  return { epoch: Number(match[1]), seq: Number(match[2]) };
}

/** Deltas live in Redis alone; every other event is a milestone with a row of its own. */
export function isMilestone(type: EventType): boolean {
  return type !== 'call_delta' && type !== 'call_snapshot' && type !== 'reset';
}
