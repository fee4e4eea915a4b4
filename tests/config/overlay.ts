// What the tests of the configuration share: folders of their own, and the faults of a configuration that must not load.

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { onTestFinished } from 'vitest';
import {
  type Config,
  ConfigError,
  type ConfigFault,
  type ConfigSources,
  loadConfig,
} from '../../src/config.ts';

/** A folder with these files that is gone when the test ends. */
export function folderWith(files: Readonly<Record<string, string>>): string {
  const folder = mkdtempSync(join(tmpdir(), 'weir-config-'));
  onTestFinished(() => rmSync(folder, { recursive: true }));
  for (const [name, text] of Object.entries(files)) writeFileSync(join(folder, name), text);
  return folder;
}

/** Loads with nothing of the process's own environment. */
export function load(
  sources: ConfigSources & { readonly files?: Readonly<Record<string, string>> } = {},
): Config {
  const { files, ...rest } = sources;
  return loadConfig({ env: {}, ...(files === undefined ? {} : { configDir: folderWith(files) }), ...rest });
}

/** The error of a configuration that must not load. */
export function errorOf(sources: Parameters<typeof load>[0]): ConfigError {
  try {
    load(sources);
  } catch (error) {
    if (error instanceof ConfigError) return error;
    throw error;
  }
  throw new Error('the configuration loaded');
}

/** Its faults, sources without their folders. */
export function faultsOf(sources: Parameters<typeof load>[0]): ConfigFault[] {
  return errorOf(sources).faults.map((fault) => ({ ...fault, source: fault.source.replace(/^\/.*\//, '') }));
}

/** The value at a dotted path. */
export function at(value: unknown, path: string): unknown {
  return path.split('.').reduce<unknown>((inner, part) => Reflect.get(Object(inner), part), value);
}
