// What is known of a task while its events come in: phase, text so far, tokens, cost. No printing here; both views read it.

import type { TaskEvent } from '../task/event.ts';
import { formatUsd, parseUsd } from '../task/money.ts';
import type { UsageTotals } from '../task/usage.ts';
import { shorten } from './print.ts';

export type TaskProgress = {
  taskId: string;
  title: string;
  phase: string;
  model: string;
  /** Of the call under way, or of the last one. */
  text: string;
  /** The attempt that writes it; '' before any. */
  attempt: string;
  inputTokens: number;
  outputTokens: number;
  nanoUsd: bigint;
  isOver: boolean;
};

export function newProgress(taskId: string, title: string): TaskProgress {
  return {
    taskId,
    title,
    phase: 'submitted',
    model: '',
    text: '',
    attempt: '',
    inputTokens: 0,
    outputTokens: 0,
    nanoUsd: 0n,
    isOver: false,
  };
}

/** The text of a delta or a snapshot; undefined for any other event. */
export function textOf(event: TaskEvent): string | undefined {
  const text = event.data?.['text'];
  return (event.type === 'call_delta' || event.type === 'call_snapshot') && typeof text === 'string'
    ? text
    : undefined;
}

/** Takes an event in. */
export function advance(progress: TaskProgress, event: TaskEvent): void {
  const { data = {} } = event;
  progress.phase = phaseOf(event) ?? progress.phase;
  switch (event.type) {
    case 'call_started':
      progress.model = String(data['model'] ?? '');
      writes(progress, event);
      return;
    case 'call_delta':
      writes(progress, event);
      progress.text += textOf(event) ?? '';
      return;
    case 'call_snapshot':
      writes(progress, event);
      progress.text = textOf(event) ?? progress.text;
      return;
    case 'attempt_reset':
      if (event.attempt === progress.attempt) progress.text = '';
      return;
    case 'call_completed':
      count(progress, data);
      return;
    case 'reset':
      Object.assign(progress, { ...newProgress(progress.taskId, progress.title), phase: progress.phase });
      return;
    case 'stream_end':
      progress.isOver = true;
      return;
    default:
      return;
  }
}

/** Another attempt begins anew, whichever of its events comes first: where a store is slow, that may be text. */
function writes(progress: TaskProgress, { attempt = '' }: TaskEvent): void {
  if (attempt === progress.attempt) return;
  progress.attempt = attempt;
  progress.text = '';
}

function count(progress: TaskProgress, data: Readonly<Record<string, unknown>>): void {
  const usage = data['usage'] as Partial<UsageTotals> | undefined; // as calls/settle.ts publishes it
  progress.inputTokens += usage?.inputTokens ?? 0;
  progress.outputTokens += usage?.outputTokens ?? 0;
  progress.nanoUsd += parseUsd(String(data['costUsd'] ?? '')) ?? 0n;
}

function phaseOf(event: TaskEvent): string | undefined {
  switch (event.type) {
    case 'task_started':
    case 'task_resumed':
      return 'running';
    case 'task_paused':
      return 'paused';
    case 'call_started':
      return 'calling';
    case 'call_delta':
    case 'call_snapshot':
      return 'writing';
    case 'call_completed':
      return 'finishing';
    case 'attempt_reset':
      return 'trying again';
    case 'rate_wait':
    case 'backpressure':
      return `waiting for ${event.message ?? 'a limit'}`;
    case 'budget_refused':
      return 'over its budget';
    case 'stream_end':
      return String(event.data?.['status'] ?? 'ended');
    default:
      return undefined;
  }
}

/** Whether a task of this status came to an answer. */
export function isAnswered(status: string): boolean {
  return status === 'completed' || status === 'partial';
}

/** `120 → 45 tokens · $0.0012`, or nothing before the first call was settled. */
export function describeSpend({ inputTokens, outputTokens, nanoUsd }: TaskProgress): string {
  return inputTokens + outputTokens === 0
    ? ''
    : `${inputTokens} → ${outputTokens} tokens · $${formatUsd(nanoUsd)}`;
}

/** One event in a line: its type and what is worth knowing beside it; of its message so many characters at most. */
export function describeEvent(event: TaskEvent, progress: TaskProgress, messageLength: number): string {
  const details = [
    event.type,
    event.type === 'call_started' ? progress.model : '',
    event.type === 'call_completed' ? describeSpend(progress) : '',
    event.type === 'stream_end' ? progress.phase : '',
    shorten(event.message ?? '', messageLength),
  ];
  return details.filter((part) => part !== '').join('  ');
}
