// The folder that holds a stack's data, logs and addresses: checked, locked, and written without half-written files.
import { mkdirSync, readFileSync, renameSync, rmSync, statfsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { acquireLock } from '../../scripts/process-lock.mjs';
import { StackError } from './stack-error.ts';

/** A fresh stack takes about 120 MB: Postgres' cluster and log, Temporal's file. */
const NEEDED_BYTES = 200 * 1024 * 1024;
const PROBE_BYTES = 64 * 1024;
const REMEDY = 'or set WEIR_STATE_DIR to another folder';

/**
 * Makes sure that the folder exists, can be written and has room.
 *
 * @throws StackError with what is wrong and the remedy
 */
export function checkStateFolder(stateDir: string, neededBytes = NEEDED_BYTES): void {
  try {
    mkdirSync(stateDir, { recursive: true });
    const probe = join(stateDir, `.probe-${process.pid}`);
    try {
      // flush: a full disk may say so only when the bytes leave the cache
      writeFileSync(probe, Buffer.alloc(PROBE_BYTES), { flush: true });
    } finally {
      rmSync(probe, { force: true });
    }
  } catch (error) {
    throw new StackError(explain(stateDir, error), { cause: error });
  }
  const { bavail, bsize } = statfsSync(stateDir);
  if (bavail * bsize < neededBytes) throw new StackError(full(stateDir, bavail * bsize, neededBytes));
}

function explain(stateDir: string, error: unknown): string {
  const { code, message } = error as NodeJS.ErrnoException;
  if (code === 'ENOSPC' || code === 'EDQUOT') return full(stateDir, 0, NEEDED_BYTES);
  return `the state folder ${stateDir} cannot be written (${message}): make it a writable folder, ${REMEDY}`;
}

function full(stateDir: string, free: number, needed: number): string {
  const mb = (bytes: number) => `${Math.floor(bytes / 1024 / 1024)} MB`;
  return `the disk of the state folder ${stateDir} is full (${mb(free)} free, ${mb(needed)} needed): make room, ${REMEDY}`;
}

/**
 * Takes the folder for this process until `release` is called or the process ends, however it ends.
 *
 * @throws StackError when a stack runs there already
 */
export function lockStateFolder(stateDir: string): { release: () => void } {
  const lock = acquireLock(join(stateDir, 'stack.lock'));
  if (lock.kind === 'acquired') return lock;
  throw new StackError(
    `a stack is already running in ${stateDir} (process ${lock.owner.pid}${runningGateway(stateDir)}): stop it first, ${REMEDY}`,
  );
}

function runningGateway(stateDir: string): string {
  try {
    const { gateway } = JSON.parse(readFileSync(join(stateDir, 'stack.json'), 'utf8')) as {
      gateway?: string;
    };
    return gateway === undefined ? '' : `, ${gateway}`;
  } catch {
    return ''; // it is still starting: the pid says enough
  }
}

/** Readers see the old content or the new one, never a part. */
export function writeFileAtomically(file: string, text: string): void {
  const temporary = `${file}.${process.pid}.tmp`;
  writeFileSync(temporary, text, { mode: 0o600 });
  renameSync(temporary, file);
}
