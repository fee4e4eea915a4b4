// Where the programs are that the set-up found or made. It looks for nothing itself: that is the set-up's work.
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { StackError } from './stack-error.ts';

const ROOT = dirname(dirname(dirname(fileURLToPath(import.meta.url))));

export type ToolName = 'temporal' | 'redis';

const ADDRESS = { temporal: 'TEMPORAL_ADDRESS', redis: 'REDIS_URL' } as const satisfies Record<
  ToolName,
  string
>;

/**
 * The path of a program.
 *
 * @param stateDirs folders whose `tools.json` is looked into, first match wins; then `.weir` of the checkout
 * @throws StackError naming `npm run setup` when the set-up has not run, or what it found is gone
 */
export function findTool(name: ToolName, stateDirs: readonly string[]): string {
  const folders = [...stateDirs, join(ROOT, '.weir')];
  const file = folders.map((folder) => resolve(folder, 'tools.json')).find((path) => existsSync(path));
  if (file === undefined)
    throw new StackError(missing(name, `there is no tools.json in ${folders.join(' or ')}`));
  const path = readTools(file)[name];
  if (typeof path !== 'string') {
    throw new StackError(
      missing(name, `${file} names none, because ${ADDRESS[name]} was set when it was written`),
    );
  }
  if (!existsSync(path)) throw new StackError(missing(name, `${path} is gone`));
  return path;
}

function readTools(file: string): Partial<Record<ToolName, unknown>> {
  try {
    return JSON.parse(readFileSync(file, 'utf8')) as Partial<Record<ToolName, unknown>>;
  } catch (error) {
    throw new StackError(`${file} cannot be read: run \`npm run setup\``, { cause: error });
  }
}

function missing(name: ToolName, why: string): string {
  return `there is no ${name} server program to start (${why}): run \`npm run setup\`, or set ${ADDRESS[name]}`;
}
