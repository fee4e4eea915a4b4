// `weir tail`: the streamed text of one task on standard output, and what happens around it on standard error, so that a pipe gets the
// answer alone.

import type { GatewayError } from '../client/gateway-client.ts';
import type { CliEnvironment } from '../config.ts';
import { parseCursor, type TaskEvent } from '../task/event.ts';
import type { AddressFlags } from './addresses.ts';
import { openGateway } from './connect.ts';
import { CliError } from './fault.ts';
import { dim, printable, say, shorten, tell, write } from './print.ts';
import {
  advance,
  describeSpend,
  isAnswered,
  newProgress,
  type TaskProgress,
  textOf,
} from './task-progress.ts';

export type TailOptions = AddressFlags & { readonly json?: boolean; readonly after?: string };

/** @returns the exit code: 0 when the task completed, 1 when it did not */
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
  const show = options.json === true ? showRaw : createTextView();
  let isAway = false;
  const onOutage = (error: GatewayError) => {
    if (!isAway) tell(dim(`· ${error.message}; trying again`));
    isAway = true;
  };
  for await (const event of gateway.follow(taskId, { after, onOutage })) {
    isAway = false;
    advance(progress, event);
    show(event, progress);
  }
  return isAnswered(progress.isOver ? progress.phase : (await gateway.get(taskId)).status) ? 0 : 1;
}

function showRaw(event: TaskEvent): void {
  say(JSON.stringify(event));
}

/** Appends deltas; a text that starts anew does so on a line of its own. */
function createTextView(): (event: TaskEvent, progress: TaskProgress) => void {
  let isInLine = false;
  const endLine = () => {
    if (isInLine) say();
    isInLine = false;
  };
  return (event, progress) => {
    const text = textOf(event);
    if (text !== undefined) {
      if (event.type === 'call_snapshot') endLine();
      const shown = printable(text);
      write(shown);
      if (shown !== '') isInLine = !shown.endsWith('\n');
      return;
    }
    endLine();
    const details = [
      event.type,
      event.type === 'call_started' ? progress.model : '',
      event.type === 'call_completed' ? describeSpend(progress) : '',
      event.type === 'stream_end' ? progress.phase : '',
      shorten(event.message ?? '', 200),
    ];
    tell(dim(`· ${details.filter((part) => part !== '').join('  ')}`));
  };
}
