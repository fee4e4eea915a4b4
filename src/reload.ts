// Reads the configuration again when a file of it changes, and on SIGHUP, and tells what came of it. What the settings do is none of its
// business.

import { type FSWatcher, watch } from 'node:fs';
import { dirname } from 'node:path';
import { describeFault } from './config/fault.ts';
import { CONFIG_FILES, type LiveConfig } from './config/live-config.ts';
import { type ConfigFault, notEnforced } from './config.ts';
import type { Logger, RootLogger } from './log.ts';
import type { Metrics } from './metrics.ts';

export type ReloadOptions = {
  readonly live: LiveConfig;
  readonly meter: Metrics['config'];
  readonly log: RootLogger;
  /** Where SIGHUP comes from: the process; null leaves the signal alone. */
  readonly signals: Pick<NodeJS.Process, 'on' | 'off'> | null;
};

export type ReloadTimes = {
  /** A file is read once it has been the same for this long: whoever writes it may take a moment. */
  readonly settleMs: number;
  /** Some file systems tell of no change (network shares, mounts into virtual machines): then this is how late one is noticed. */
  readonly lookEveryMs: number;
};

const TIMES: ReloadTimes = { settleMs: 200, lookEveryMs: 10_000 };

/** Whom to ask for SIGHUP. On a terminal it says that the terminal is gone, which ends a process as ever. */
export function hangUps(): ReloadOptions['signals'] {
  return process.stdout.isTTY ? null : process;
}

/** Reloads until disposed. A configuration that is at fault is logged, and everything stays as it was. */
export function startReloading(options: ReloadOptions, times: ReloadTimes = TIMES): AsyncDisposable {
  const { live, log, signals } = options;
  live.onReload(({ before, after }) => {
    log.setLevel(after.log.level);
    const known = notEnforced(before);
    const ignored = notEnforced(after).filter((path) => !known.includes(path));
    if (ignored.length > 0) log.warn('accepted but not enforced yet', { settings: ignored });
  });
  const read = (cause: string) => {
    try {
      reload(options, cause);
    } catch (error) {
      log.error('the configuration could not be read again', { error });
    }
  };
  const watcher = watchFiles(live, log, { ...times, onChange: () => read('a file changed') });
  const onHangUp = () => read('SIGHUP');
  signals?.on('SIGHUP', onHangUp);
  return {
    async [Symbol.asyncDispose]() {
      signals?.off('SIGHUP', onHangUp);
      watcher.stop();
    },
  };
}

function reload({ live, meter, log }: ReloadOptions, cause: string): void {
  const outcome = live.reload();
  const faulty = new Set(outcome.kind === 'refused' ? outcome.faults.map(fileOf) : []);
  for (const file of [...CONFIG_FILES, 'environment']) meter.failed(file, faulty.has(file));
  if (outcome.kind === 'refused') {
    log.error('the configuration is at fault, everything stays as it was', {
      cause,
      faults: outcome.faults.map(describeFault),
    });
    return;
  }
  for (const file of outcome.files) meter.reloaded(file);
  if (outcome.ignored.length > 0)
    log.warn('settings changed that need a new start', { settings: outcome.ignored });
  if (outcome.changed.length > 0) log.info('the configuration changed', { cause, settings: outcome.changed });
  else log.info('the configuration was read again, nothing changed', { cause });
}

/** A fault of the environment may show only now: a name that means a row which is gone. */
function fileOf({ source }: ConfigFault): string {
  return CONFIG_FILES.find((file) => source.replace(/:\d+$/, '').endsWith(file)) ?? 'environment';
}

/**
 * Notices changes of the files, also where a link on the way to them changes (Kubernetes exchanges `..data` beside them), by the events
 * of their folders and, since those may be missed, by looking.
 */
function watchFiles(
  live: LiveConfig,
  log: Logger,
  { settleMs, lookEveryMs, onChange }: ReloadTimes & { readonly onChange: () => void },
): { stop(): void } {
  let settling: NodeJS.Timeout | undefined;
  const look = () => {
    clearTimeout(settling);
    settling = setTimeout(() => {
      if (live.isOutdated()) onChange();
    }, settleMs).unref();
  };
  const folders = [...new Set(live.files.map((file) => dirname(file)))];
  const watchers = folders.flatMap((folder) => watchFolder(folder, look, log));
  const looking = setInterval(() => {
    if (live.isOutdated()) look();
  }, lookEveryMs).unref();
  return {
    stop() {
      clearTimeout(settling);
      clearInterval(looking);
      for (const watcher of watchers) watcher.close();
    },
  };
}

function watchFolder(folder: string, onEvent: () => void, log: Logger): FSWatcher[] {
  const onError = (error: unknown) =>
    log.debug('a folder tells of no changes, its files are looked at instead', { folder, error });
  try {
    return [watch(folder, { persistent: false }, onEvent).on('error', onError)];
  } catch (error) {
    onError(error);
    return [];
  }
}
