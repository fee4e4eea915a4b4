// The configuration of a running process: read once, and read again when its files change. What may change under way is swapped as a
// whole, all three files at once; what may not keeps the value the process was started with. A bad file changes nothing.

import { isDeepStrictEqual } from 'node:util';
import {
  type Config,
  ConfigError,
  type ConfigFault,
  type ConfigSources,
  configFiles,
  loadConfig,
} from '../config.ts';
import { fingerprint } from './fingerprint.ts';
import { isMap } from './records.ts';

export const CONFIG_FILES = ['default.yaml', 'models.yaml', 'limits.yaml'] as const;

type ConfigFile = (typeof CONFIG_FILES)[number];

/** The sections that change while a process runs, and the file that each stands in. Of `log` only the level does. */
const RELOADED = {
  limits: 'limits.yaml',
  providers: 'models.yaml',
  models: 'models.yaml',
  tiers: 'models.yaml',
  modelsHash: 'models.yaml',
  breakers: 'default.yaml',
  log: 'default.yaml',
} as const satisfies Partial<Record<keyof Config, ConfigFile>>;

export type ConfigChange = { readonly before: Config; readonly after: Config };

type ReloadOutcome =
  /** Settings as dotted keys. `ignored` have changed in the files and need a new start; each is named once. */
  | {
      readonly kind: 'read';
      readonly changed: readonly string[];
      readonly files: readonly ConfigFile[];
      readonly ignored: readonly string[];
    }
  /** Everything stays as it was. */
  | { readonly kind: 'refused'; readonly faults: readonly ConfigFault[] };

export type LiveConfig = {
  /** Its sections are those of now, whenever they are read: whoever keeps one keeps an old one. */
  readonly config: Config;
  /** All files that it was read from, or would have been had they been there. */
  readonly files: readonly string[];
  /** Told after each change, in the order of asking. */
  onReload(listener: (change: ConfigChange) => void): void;
  /** Whether a file says something else than when it was last read. */
  isOutdated(): boolean;
  reload(): ReloadOutcome;
};

/** Reads a configuration as `loadConfig` does. @throws ConfigError with all faults at once */
export function openLiveConfig(sources: ConfigSources = {}): LiveConfig {
  const files = configFiles(sources);
  const listeners: ((change: ConfigChange) => void)[] = [];
  let read = readSettled(files, sources);
  if (read.kind === 'refused') throw new ConfigError(read.faults);
  let { content } = read;
  let [lastRead, present] = [read.config, read.config];
  return {
    config: liveFields(() => present),
    files,
    onReload: (listener) => void listeners.push(listener),
    isOutdated: () => fingerprint(files) !== content,
    reload() {
      read = readSettled(files, sources);
      ({ content } = read);
      if (read.kind === 'refused') return { kind: 'refused', faults: read.faults };
      const [before, next] = [present, read.config];
      const after = merge(before, next);
      const news = new Set(differences(lastRead, next));
      const ignored = differences(after, next).filter((path) => news.has(path));
      const changed = differences(before, after);
      lastRead = next;
      present = after;
      if (changed.length > 0) for (const tell of listeners) tell({ before, after });
      return { kind: 'read', changed, files: filesOf(before, after), ignored };
    },
  };
}

/**
 * An object whose fields are those of another one, which is asked for anew at each reading. For settings that a part is given once and
 * reads at each use.
 */
export function liveFields<T extends object>(present: () => T): T {
  const fields = Object.keys(present()).map(
    (name) => [name, { enumerable: true, get: (): unknown => Reflect.get(present(), name) }] as const,
  );
  return Object.defineProperties({}, Object.fromEntries(fields)) as T; // it has exactly the fields of T
}

type Read = { readonly content: string } & (
  | { readonly kind: 'read'; readonly config: Config }
  | { readonly kind: 'refused'; readonly faults: readonly ConfigFault[] }
);

const MAX_READS = 5;

/** Files may be exchanged between the reading of one and the next: then all are read again, so that they belong together. */
function readSettled(files: readonly string[], sources: ConfigSources): Read {
  for (let reads = 1; ; reads += 1) {
    const content = fingerprint(files);
    const read = tryRead(content, sources);
    if (reads >= MAX_READS || fingerprint(files) === content) return read;
  }
}

function tryRead(content: string, sources: ConfigSources): Read {
  try {
    return { kind: 'read', content, config: loadConfig(sources) };
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    return { kind: 'refused', content, faults: error.faults };
  }
}

function merge(present: Config, next: Config): Config {
  const { limits, providers, models, tiers, modelsHash, breakers } = next;
  const log = Object.freeze({ ...present.log, level: next.log.level });
  return Object.freeze({ ...present, limits, providers, models, tiers, modelsHash, breakers, log });
}

function filesOf(before: Config, after: Config): readonly ConfigFile[] {
  const names = Object.keys(RELOADED) as (keyof typeof RELOADED)[]; // the keys of this very table
  const changed = names.filter((name) => !isDeepStrictEqual(before[name], after[name]));
  return [...new Set(changed.map((name) => RELOADED[name]))];
}

/** Keys, as files write them, whose values differ. Names only: a value may be a secret. */
function differences(one: unknown, other: unknown, path = ''): string[] {
  if (isDeepStrictEqual(one, other)) return [];
  if (!isSection(one) || !isSection(other)) return [path.replace(/Ms$/, '')];
  return [...new Set([...Object.keys(one), ...Object.keys(other)])].flatMap((name) =>
    differences(one[name], other[name], path === '' ? name : `${path}.${name}`),
  );
}

/** Buffers (certificates) are compared as a whole. */
function isSection(value: unknown): value is Readonly<Record<string, unknown>> {
  return isMap(value) && !ArrayBuffer.isView(value);
}
