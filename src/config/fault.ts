// What is wrong with a setting, and the one error that says it. The value of a secret, or of anything that might be one, must not
// get into a fault.

import type { z } from 'zod';
import { describeValue } from '../task/input-fields.ts';

/** One wrong setting: its dotted key, what was expected, what came, and the file and line or environment name it came from. */
export type ConfigFault = {
  readonly key: string;
  readonly expected: string;
  readonly got: string;
  readonly source: string;
};

/** All faults of a configuration in one message. Nothing was started when it is thrown. */
export class ConfigError extends Error {
  readonly faults: readonly ConfigFault[];

  constructor(faults: readonly ConfigFault[]) {
    const lines = faults.map((fault) => `  ${describeFault(fault)}`);
    const head =
      faults.length === 1 ? 'the configuration has a fault' : `the configuration has ${faults.length} faults`;
    super([`${head}:`, ...lines].join('\n'));
    this.name = 'ConfigError';
    this.faults = faults;
  }
}

/** One line: key, expectation, value, and the place it came from. */
export function describeFault({ key, expected, got, source }: ConfigFault): string {
  return `${key === '' ? '' : `${key}: `}expected ${expected}, got ${got} (${source})`;
}

/** A value without its content: what is told of secrets, and of unknown keys, which may be a secret under a misspelt name. */
export function describeType(value: unknown): string {
  if (value === undefined) return 'nothing';
  if (value === null) return 'null';
  if (Array.isArray(value)) return 'a list';
  return (
    { string: 'a text', number: 'a number', boolean: 'a boolean', object: 'a map' }[typeof value as string] ??
    typeof value
  );
}

/** A value as faults show it; `hidden` tells its type alone. */
export function describeGot(value: unknown, hidden = false): string {
  if (value === undefined) return 'nothing';
  return hidden ? `${describeType(value)} (not shown)` : describeValue(value);
}

/** Zod's issues as faults: an unknown key each, and for all others the path, the expectation and the value found there. */
export function toFaults(
  error: z.ZodError,
  input: unknown,
  locate: (path: readonly PropertyKey[]) => string,
): ConfigFault[] {
  return error.issues.flatMap((issue): ConfigFault[] => {
    const value = valueAt(input, issue.path);
    const at = (path: readonly PropertyKey[]) => ({ key: toKey(path), source: locate(path) });
    if (issue.code === 'unrecognized_keys')
      return issue.keys.map((key) => ({
        ...at([...issue.path, key]),
        expected: 'no such key',
        got: describeType(valueAt(value, [key])),
      }));
    if (issue.code === 'invalid_key')
      return [{ ...at(issue.path), expected: issue.issues[0]?.message ?? 'another key', got: 'this key' }];
    const hidden = issue.code === 'custom' && issue.params?.['hidden'] === true;
    return [{ ...at(issue.path), expected: toExpectation(issue), got: describeGot(value, hidden) }];
  });
}

/** A path as people write it: `budgets.user[0].amount`. */
function toKey(path: readonly PropertyKey[]): string {
  return path
    .map((part, index) =>
      typeof part === 'number' ? `[${part}]` : `${index === 0 ? '' : '.'}${String(part)}`,
    )
    .join('');
}

function toExpectation(issue: z.core.$ZodIssue): string {
  if (issue.code !== 'invalid_type') return issue.message;
  if (issue.expected === 'object' || issue.expected === 'record') return 'a map';
  return issue.expected === 'array' ? 'a list' : issue.message;
}

function valueAt(value: unknown, path: readonly PropertyKey[]): unknown {
  return path.reduce<unknown>(
    (inner, part) => (typeof inner === 'object' && inner !== null ? Reflect.get(inner, part) : undefined),
    value,
  );
}
