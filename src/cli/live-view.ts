// How `weir submit` shows tasks under way: two lines a task, redrawn in place on a terminal; elsewhere a line for each thing that
// happens. It reads progress and decides nothing.

import type { TaskEvent } from '../task/event.ts';
import {
  bold,
  dim,
  green,
  isLive,
  printable,
  red,
  say,
  shorten,
  terminalSize,
  write,
  yellow,
} from './print.ts';
import { describeEvent, describeSpend, type TaskProgress } from './task-progress.ts';

export type TaskViewer = {
  /** Something happened to a task that is shown. */
  update(progress: TaskProgress, event?: TaskEvent): void;
  /** A line about no task in particular. */
  note(line: string): void;
  close(): void;
};

/** @param tasks the list that the caller keeps; it may grow */
export function createTaskViewer(tasks: readonly TaskProgress[]): TaskViewer {
  return isLive() ? createRedrawn(tasks) : createLines();
}

const FRAME_MS = 80;
const NO_WRAP = '\u001b[?7l';
const WRAP = '\u001b[?7h';

function createRedrawn(tasks: readonly TaskProgress[]): TaskViewer {
  let drawn = 0;
  let timer: NodeJS.Timeout | undefined;
  let notes: string[] = [];
  const draw = () => {
    timer = undefined;
    const lines = frame(tasks);
    const back = drawn === 0 ? '' : `\u001b[${drawn}A`;
    const said = notes.map((line) => `${line}\n`).join('');
    // Without wrapping each line is one row, whatever the width of its characters.
    write(`${back}\r\u001b[0J${said}${NO_WRAP}${lines.map((line) => `${line}\n`).join('')}${WRAP}`);
    drawn = lines.length;
    notes = [];
  };
  const soon = () => {
    timer ??= setTimeout(draw, FRAME_MS);
  };
  return {
    update: soon,
    note(line) {
      notes.push(line);
      soon();
    },
    close() {
      clearTimeout(timer);
      draw();
    },
  };
}

function frame(tasks: readonly TaskProgress[]): readonly string[] {
  const { rows, columns } = terminalSize();
  const room = Math.max(1, Math.floor((rows - 2) / 2));
  // Those under way are what somebody wants to see when not all fit.
  const shown =
    tasks.length <= room
      ? tasks
      : tasks.toSorted((a, b) => Number(a.isOver) - Number(b.isOver)).slice(0, room);
  const lines = shown.flatMap((task) => [
    `${mark(task)} ${bold(shorten(task.title || task.taskId, 40).padEnd(40))} ${task.phase.padEnd(12)} ${dim(describeSpend(task))}`,
    dim(`  ${tail(task.text, columns - 3)}`),
  ]);
  return shown.length === tasks.length ? lines : [...lines, dim(`  … ${tasks.length - shown.length} more`)];
}

function mark({ isOver, phase }: TaskProgress): string {
  if (!isOver) return yellow('•');
  return phase === 'completed' ? green('✓') : red('✗');
}

/** The end of a text, on one line. */
function tail(text: string, length: number): string {
  return printable(text.slice(-4 * length))
    .replaceAll(/\s+/g, ' ')
    .slice(-length);
}

const LINE_LENGTH = 100;

function createLines(): TaskViewer {
  const pending = new Map<string, string>();
  const line = (progress: TaskProgress, text: string) => say(`${progress.taskId}  ${text}`);
  const flush = (progress: TaskProgress) => {
    const rest = pending.get(progress.taskId) ?? '';
    if (rest.trim() !== '') line(progress, `| ${rest.trimEnd()}`);
    pending.delete(progress.taskId);
  };
  return {
    update(progress, event) {
      if (event === undefined) return line(progress, progress.phase);
      if (event.type === 'call_delta' || event.type === 'call_snapshot') {
        const text = printable(String(event.data?.['text'] ?? ''));
        const { whole, rest } = cut((pending.get(progress.taskId) ?? '') + text);
        for (const part of whole) line(progress, `| ${part}`);
        pending.set(progress.taskId, rest);
        return;
      }
      flush(progress);
      line(progress, describeEvent(event, progress, 160));
    },
    note: say,
    close: () => undefined,
  };
}

/** Lines that are whole, or long enough to be broken at a space. */
function cut(text: string): { readonly whole: readonly string[]; readonly rest: string } {
  const whole: string[] = [];
  let rest = text;
  for (;;) {
    const end = rest.search(/\r\n|\r|\n/);
    const space = rest.lastIndexOf(' ', LINE_LENGTH);
    const at = end >= 0 && end <= LINE_LENGTH ? end : rest.length > LINE_LENGTH && space > 0 ? space : -1;
    if (at < 0) return { whole, rest };
    if (at > 0) whole.push(rest.slice(0, at));
    rest = rest.slice(at + 1);
  }
}
