// `weir replay`: runs saved histories against the workflows of this source tree, and saves histories of real tasks to be run later.
// A history that does not replay means that running tasks would break on this code.

import { readdir, readFile, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { status } from '@grpc/grpc-js';
import { historyFromJSON, historyToJSON } from '@temporalio/common/lib/proto-utils.js';
import { bundleWorkflowCode, Runtime, Worker } from '@temporalio/worker';
import type { CliEnvironment } from '../config.ts';
import type { AddressFlags } from './addresses.ts';
import { CliError, describeError } from './fault.ts';
import { green, red, say, shorten } from './print.ts';
import { quietLogger, workflowsPath } from './processes.ts';
import { withTemporal } from './temporal.ts';

type History = ReturnType<typeof historyFromJSON>;
type Read = { readonly name: string } & (
  | { readonly history: History; readonly workflowId: string }
  | { readonly fault: string }
);

/** One line a file. @returns the exit code: 1 when one of them does not replay @throws CliError for a folder without histories */
export async function runReplay(folder: string): Promise<number> {
  const files = await listHistories(folder);
  const read = await Promise.all(files.map(readHistory));
  Runtime.install({
    logger: quietLogger(),
    telemetryOptions: { logging: { filter: { core: 'ERROR', other: 'ERROR' } } },
  });
  const workflowBundle = await bundleWorkflowCode({ workflowsPath: workflowsPath(), logger: quietLogger() });
  let failed = 0;
  for (const one of read) {
    const fault = 'fault' in one ? one.fault : await replay(workflowBundle, one);
    if (fault !== undefined) failed += 1;
    say(fault === undefined ? `${green('✓')} ${one.name}` : `${red('✗')} ${one.name}: ${fault}`);
  }
  say(failed === 0 ? `${files.length} replayed` : `${failed} of ${files.length} did not replay`);
  return failed === 0 ? 0 : 1;
}

async function listHistories(folder: string): Promise<readonly string[]> {
  const entries = await readdir(folder).catch((error: unknown) => {
    throw new CliError(`${folder} cannot be read: ${error instanceof Error ? error.message : error}`, error);
  });
  const files = entries.filter((entry) => entry.endsWith('.json')).toSorted();
  if (files.length === 0) throw new CliError(`${folder} holds no histories (*.json)`);
  return files.map((file) => join(folder, file));
}

async function readHistory(path: string): Promise<Read> {
  const name = basename(path);
  try {
    const history = historyFromJSON(JSON.parse(await readFile(path, 'utf8')));
    const started = history.events?.[0]?.workflowExecutionStartedEventAttributes;
    if (started === undefined || started === null)
      return { name, fault: 'no history: its first event is not the start of a workflow' };
    return { name, history, workflowId: started.workflowId || basename(path, '.json') };
  } catch (error) {
    return { name, fault: `no history: ${oneLine(error)}` };
  }
}

/** What went wrong, or nothing. One at a time: a history that breaks the worker takes no other with it. */
async function replay(
  workflowBundle: Awaited<ReturnType<typeof bundleWorkflowCode>>,
  { history, workflowId }: { history: History; workflowId: string },
): Promise<string | undefined> {
  try {
    for await (const { error } of Worker.runReplayHistories({ workflowBundle }, [{ history, workflowId }]))
      if (error !== undefined) return oneLine(error);
    return undefined;
  } catch (error) {
    return oneLine(error);
  }
}

function oneLine(error: unknown): string {
  return shorten(describeError(error), 400);
}

/** Writes a task's history as JSON whose bytes depend on the history alone. */
export async function saveHistory(
  taskId: string,
  path: string,
  flags: AddressFlags,
  environment: CliEnvironment,
): Promise<void> {
  const history = await withTemporal(flags, environment, async ({ client }) =>
    client.workflow
      .getHandle(taskId)
      .fetchHistory()
      .catch((error: unknown) => {
        if (isNotFound(error)) throw new CliError(`Temporal has no task with the id ${taskId}`, error);
        throw error;
      }),
  );
  const content: unknown = JSON.parse(historyToJSON(history));
  await writeFile(path, `${JSON.stringify(inOrder(content), null, 2)}\n`).catch((error: unknown) => {
    throw new CliError(`${path} cannot be written: ${error instanceof Error ? error.message : error}`, error);
  });
  say(`${path}: ${history.events?.length ?? 0} events`);
}

/** Fetching a history is the one request whose gRPC error the SDK hands on as it is. */
function isNotFound(error: unknown): boolean {
  return error instanceof Error && Reflect.get(error, 'code') === status.NOT_FOUND;
}

/** The same value with the keys of every object in alphabetical order: maps come from the server in any. */
function inOrder(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(inOrder);
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(
    Object.entries(value)
      .toSorted(([left], [right]) => (left < right ? -1 : 1))
      .map(([key, inner]) => [key, inOrder(inner)]),
  );
}
