// What the publishers of a fault run tell of a task: calls, one after the other, each streamed in pieces whose place can be read off their
// text. Pure: publishers, readers and the audit all go by it.

import type { EventDraft } from '../../src/task/event.ts';

/** Milestones of a call are four: it starts, its step starts, it completes, its step completes. */
const PIECES = 36;
export const EVENTS_PER_CALL = PIECES + 4;

/** Which attempt of which call of a task; attempts are counted over the whole task. */
export type ChaosCall = { readonly taskId: string; readonly n: number; readonly attempt: number };

export const RUN = 'run-1';

export function taskOf(taskId: string) {
  return { taskId, runId: RUN, tenantId: 'default' };
}

export function taskIds(prefix: string, count: number): string[] {
  return Array.from({ length: count }, (_, n) => `${prefix}-${n}`);
}

export function originOf({ taskId, n, attempt }: ChaosCall) {
  const callKey = `${taskId}:${RUN}:s${n}:1`;
  return { callKey, stepId: `s${n}`, attemptKey: `${callKey}#0.1.${attempt}.0` };
}

/** Text of one attempt alone, with a character of four bytes and one of two. */
export function piecesOf({ taskId, n, attempt }: ChaosCall): string[] {
  return Array.from({ length: PIECES }, (_, k) => `${taskId}/${n}/${attempt}/${k} é🌊; `);
}

export function textOf(call: ChaosCall): string {
  return piecesOf(call).join('');
}

export function startOf(call: ChaosCall): EventDraft[] {
  const { callKey, stepId, attemptKey } = originOf(call);
  return [
    { id: `${RUN}:step:${call.n}`, type: 'step_started', stepId },
    { id: `${attemptKey}:started`, type: 'call_started', stepId, callKey, attempt: attemptKey },
  ];
}

/** The call goes on in a new attempt: what the one before streamed is void. */
export function restartOf(before: ChaosCall, now: ChaosCall): EventDraft[] {
  const { callKey, stepId, attemptKey } = originOf(before);
  return [
    { id: `${attemptKey}:reset`, type: 'attempt_reset', stepId, callKey, attempt: attemptKey },
    ...startOf(now).slice(1),
  ];
}

export function endOf(call: ChaosCall): EventDraft[] {
  const { callKey, stepId, attemptKey } = originOf(call);
  const textBytes = Buffer.byteLength(textOf(call));
  return [
    {
      ...{ id: `${attemptKey}:completed`, type: 'call_completed', stepId, callKey, attempt: attemptKey },
      data: { textBytes },
    },
    { id: `${RUN}:step:${call.n}:end`, type: 'step_completed', stepId },
  ];
}

export const TASK_END: readonly EventDraft[] = [
  { id: `${RUN}:end`, type: 'task_completed', data: { status: 'completed' } },
  { id: `${RUN}:stream_end`, type: 'stream_end', data: { status: 'completed' } },
];
