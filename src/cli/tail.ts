// `weir tail`: the streamed text of one task on standard output, and what happens around it on standard error, so that a pipe gets the
// answer alone. Leaving here stops no task.

import type { GatewayError } from '../client/gateway-client.ts';
import type { CliEnvironment } from '../config.ts';
import { formatCursor, parseCursor, type TaskEvent } from '../task/event.ts';
import type { AddressFlags } from './addresses.ts';
import { openGateway } from './connect.ts';
import { CliError } from './fault.ts';
import { dim, isLive, printable, say, tell, write } from './print.ts';
import {
  advance,
  describeEvent,
  isAnswered,
  newProgress,
  type TaskProgress,
  textOf,
} from './task-progress.ts';

export type TailOptions = AddressFlags & { readonly json?: boolean; readonly after?: string };

/** @returns the exit code: 0 when the task completed, 1 when it did not, 130 when interrupted */
export async function runTail(
  taskId: string,
  options: TailOptions,
  environment: CliEnvironment,
): Promise<number> {
  const after = options.after === undefined ? undefined : parseCursor(options.after);
  if (options.after !== undefined && after === undefined)
    throw new CliError(`--after is a position such as 1-42, got "${options.after}"`);
  const gateway = openGateway(options, environment);
  const progress = newProgress(taskId, taskId);
  const view = options.json === true ? RAW : createTextView();
  const interrupted = new AbortController();
  const { signal } = interrupted;
  const onSignal = () => interrupted.abort();
  process.once('SIGINT', onSignal);
  let isAway = false;
  const onOutage = (error: GatewayError) => {
    if (!isAway) view.note(`${error.message}; trying again`);
    isAway = true;
  };
  let position = options.after;
  try {
    for await (const event of gateway.follow(taskId, { after, signal, onOutage })) {
      isAway = false;
      position = formatCursor(event);
      advance(progress, event);
      view.show(event, progress);
    }
    if (signal.aborted) {
      view.end();
      view.note(
        `${taskId} goes on: weir tail ${taskId}${position === undefined ? '' : ` --after ${position}`}`,
      );
      return 130;
    }
  } finally {
    process.off('SIGINT', onSignal);
  }
  return isAnswered(progress.isOver ? progress.phase : (await gateway.get(taskId)).status) ? 0 : 1;
}

type TailView = {
  show(event: TaskEvent, progress: TaskProgress): void;
  /** A line about no event. A text that is under way goes on after it. */
  note(line: string): void;
  /** Nothing more of a text comes. */
  end(): void;
};

const RAW: TailView = {
  show: (event) => say(JSON.stringify(event)),
  end: () => undefined,
  note: (line) => tell(dim(`· ${line}`)),
};

/** Appends deltas; of a text that is told again only what is new, and on a line of its own where it is another one. */
function createTextView(): TailView {
  /** What is on the screen of the calls under way, each by its key. */
  const shown = new Map<string, string>();
  let current = '';
  let isInLine = false;
  const endLine = () => {
    if (isInLine) say();
    isInLine = false;
  };
  const put = (text: string) => {
    const safe = printable(text);
    write(safe);
    if (safe !== '') isInLine = !safe.endsWith('\n');
  };
  const showText = ({ type, callKey = '' }: TaskEvent, text: string) => {
    if (callKey !== current) endLine();
    current = callKey;
    const before = shown.get(callKey) ?? '';
    const isToldAgain = type === 'call_snapshot';
    const goesOn = isToldAgain && text.startsWith(before);
    if (isToldAgain && !goesOn) endLine();
    put(goesOn ? text.slice(before.length) : text);
    shown.set(callKey, isToldAgain ? text : before + text);
  };
  return {
    end: endLine,
    note(line) {
      // A file or a pipe gets the text as it is, without a break where the connection had one.
      if (isLive()) endLine();
      tell(dim(`· ${line}`));
    },
    show(event, progress) {
      const text = textOf(event);
      if (text !== undefined) return showText(event, text);
      endLine();
      if (event.type === 'reset') shown.clear();
      if (BEGINS_OR_ENDS_TEXT.has(event.type)) shown.delete(event.callKey ?? '');
      tell(dim(`· ${describeEvent(event, progress, 200)}`));
    },
  };
}

const BEGINS_OR_ENDS_TEXT: ReadonlySet<TaskEvent['type']> = new Set([
  'call_started',
  'call_completed',
  'attempt_reset',
]);
