// Inputs of `weir submit`: from the command line, from a file of JSON lines, or both. All are checked before anything is started, and
// every fault is told with its place.

import { readFile } from 'node:fs/promises';
import { text } from 'node:stream/consumers';
import { parseTaskInput, taskIdFault } from '../task/input.ts';
import { CliError, describeFaults } from './fault.ts';

/** Fields of an input as flags give them; what is not given is absent. */
export type InputFlags = {
  readonly user?: string;
  readonly tenant?: string;
  readonly session?: string;
  readonly tier?: string;
  readonly model?: string;
  readonly maxOutputTokens?: string;
  readonly reasoningEffort?: string;
  readonly budgetUsd?: string;
  readonly onExceeded?: string;
  readonly abort?: string;
  readonly priority?: string;
  readonly deadline?: string;
};

/** What is submitted, and where it came from. */
export type GivenInput = { readonly input: unknown; readonly title: string };

/** Of a query on the command line that names nobody. */
export const DEFAULT_USER = 'cli';

/** @throws CliError naming each fault of each input */
export async function readInputs(given: {
  readonly query: string | undefined;
  readonly file: string | undefined;
  readonly id: string | undefined;
  readonly flags: InputFlags;
}): Promise<readonly GivenInput[]> {
  const { query, file, id, flags } = given;
  if ((query === undefined) === (file === undefined))
    throw new CliError('give either a query in quotes or --file with one JSON object a line');
  const sources = file === undefined ? [fromQuery(query, flags)] : await fromFile(file, flags);
  const idFault = id === undefined ? undefined : taskIdFault(id);
  const faults = [
    ...(idFault === undefined ? [] : [describeFaults([idFault])]),
    ...sources.flatMap(({ place, input, broken }) => describePlace(place, input, broken)),
  ];
  if (faults.length > 0)
    throw new CliError(`nothing was submitted, since the input is not valid\n${faults.join('\n')}`);
  if (id !== undefined && sources.length > 1)
    throw new CliError('--id names one task, and there are several');
  return sources.map(({ input }) => ({ input, title: titleOf(input) }));
}

type Source = { readonly place: string; readonly input: unknown; readonly broken?: string };

function describePlace(place: string, input: unknown, broken: string | undefined): string[] {
  if (broken !== undefined) return [`${place}: ${broken}`];
  const parsed = parseTaskInput(input);
  if (parsed.kind === 'valid') return [];
  const faults = describeFaults(parsed.faults);
  return [place === '' ? faults : `${place}:\n${faults}`];
}

function fromQuery(query: string | undefined, flags: InputFlags): Source {
  return { place: '', input: { userId: DEFAULT_USER, query, ...toFields(flags, undefined) } };
}

async function fromFile(path: string, flags: InputFlags): Promise<readonly Source[]> {
  const content = await (path === '-' ? text(process.stdin) : readFile(path, 'utf8')).catch(
    (error: unknown) => {
      throw new CliError(`${path} cannot be read: ${error instanceof Error ? error.message : error}`, error);
    },
  );
  const lines = content.replace(/^\ufeff/, '').split(/\r?\n/);
  const sources = lines.flatMap((line, index) =>
    line.trim() === '' ? [] : [fromLine(`${path}:${index + 1}`, line, flags)],
  );
  if (sources.length === 0) throw new CliError(`${path} holds no task: expected one JSON object a line`);
  return sources;
}

function fromLine(place: string, line: string, flags: InputFlags): Source {
  let input: unknown;
  try {
    input = JSON.parse(line);
  } catch (error) {
    return { place, input: undefined, broken: error instanceof Error ? error.message : 'no JSON' };
  }
  if (typeof input !== 'object' || input === null || Array.isArray(input)) return { place, input };
  return { place, input: { ...input, ...toFields(flags, Reflect.get(input, 'budget')) } };
}

/** Flags as fields; they win over a file's. Texts that are no numbers stay texts, for the check to name. */
function toFields(flags: InputFlags, budget: unknown): Record<string, unknown> {
  const { maxOutputTokens, budgetUsd, onExceeded } = flags;
  const fields = {
    userId: flags.user,
    tenantId: flags.tenant,
    sessionId: flags.session,
    tier: flags.tier,
    model: flags.model,
    maxOutputTokens:
      maxOutputTokens !== undefined && /^-?\d+$/.test(maxOutputTokens)
        ? Number(maxOutputTokens)
        : maxOutputTokens,
    reasoningEffort: flags.reasoningEffort,
    budget:
      budgetUsd === undefined && onExceeded === undefined
        ? undefined
        : {
            ...(typeof budget === 'object' ? budget : {}),
            ...(budgetUsd === undefined ? {} : { usd: budgetUsd }),
            ...(onExceeded === undefined ? {} : { onExceeded }),
          },
    abort: flags.abort,
    priority: flags.priority,
    deadline: flags.deadline,
  };
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined));
}

function titleOf(input: unknown): string {
  const parsed = parseTaskInput(input);
  if (parsed.kind === 'invalid') return '';
  const message = parsed.input.messages.findLast(({ role }) => role === 'user');
  if (message === undefined) return '';
  return typeof message.content === 'string'
    ? message.content
    : message.content.map((part) => part.text).join(' ');
}
