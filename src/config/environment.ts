// Environment variables as configuration sees them: an empty one counts as not set (that is what compose files pass for a variable
// nobody filled in), and a secret may stand in a file that `<NAME>_FILE` names.

import { readFileSync } from 'node:fs';
import { type ConfigFault, describeGot } from './fault.ts';

export type Environment = Readonly<Record<string, string | undefined>>;

/** The variables that are set to something. */
export function presentEnvironment(env: Environment): Environment {
  return Object.fromEntries(Object.entries(env).filter(([, text]) => text !== undefined && text !== ''));
}

type FoundSecret = { readonly value: string; readonly source: string };

/** A secret from `<NAME>` or from the file that `<NAME>_FILE` names, without the file's closing line break. */
export function readSecret(
  env: Environment,
  name: string,
  key: string,
  faults: ConfigFault[],
): FoundSecret | undefined {
  const [value, path] = [env[name], env[`${name}_FILE`]];
  const source = `environment ${path === undefined ? name : `${name}_FILE`}`;
  if (value !== undefined && path !== undefined) {
    faults.push({ key, expected: `one of ${name} and ${name}_FILE`, got: 'both', source });
    return undefined;
  }
  const found = path === undefined ? value : readSecretFile(path, key, source, faults);
  if (found === undefined) return undefined;
  if (/[\r\n\0]/.test(found) || found.trim() === '') {
    faults.push({ key, expected: 'one line of text', got: describeGot(found, true), source });
    return undefined;
  }
  return { value: found, source: path === undefined ? source : `${source}, file ${path}` };
}

function readSecretFile(
  path: string,
  key: string,
  source: string,
  faults: ConfigFault[],
): string | undefined {
  try {
    return readFileSync(path, 'utf8').replace(/\r?\n$/, '');
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? String(error.code) : 'unreadable';
    faults.push({ key, expected: 'a readable file', got: `${code} for ${path}`, source });
    return undefined;
  }
}
