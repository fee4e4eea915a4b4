// Locks that are held by a process and become free when it is gone, however it ended. Used by the set-up and by the
// embedded stack. A pid alone never proves anything here: pids are used again, so each is kept with its start time.
import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync, rmdirSync, rmSync, statSync, writeFileSync } from 'node:fs';

/** A file or guard that stayed unreadable or untouched for so long belongs to a process that died while writing it. */
const ABANDONED_MS = 5_000;

let bootId;

/**
 * What tells a process from every other that has or had the same pid: boot and start time.
 *
 * @param {number} pid
 * @returns {string | null} null when there is no such process, or only its unreaped rest
 */
export function processStart(pid) {
  return process.platform === 'linux' ? startFromProc(pid) : startFromPs(pid);
}

function startFromProc(pid) {
  let stat;
  try {
    stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
  } catch {
    return null; // no such process
  }
  // The name in parentheses may hold blanks and parentheses of its own; the fields begin after the last one.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  if (fields[0] === 'Z' || fields[0] === 'X') return null;
  bootId ??= readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();
  return `${bootId}/${fields[19]}`;
}

function startFromPs(pid) {
  try {
    const line = execFileSync('ps', ['-o', 'stat=,lstart=', '-p', String(pid)], { encoding: 'utf8' }).trim();
    const [state = '', ...start] = line.split(/\s+/);
    return state === '' || state.startsWith('Z') ? null : start.join(' ');
  } catch {
    return null; // ps ends with 1 when there is no such process
  }
}

/** Whether the very process of a record made earlier still runs. */
export function isRunning(owner) {
  return processStart(owner.pid) === owner.started;
}

/**
 * Takes the lock, or says who has it. Never waits longer than a moment.
 *
 * @param {string} file path of the lock; its folder must exist
 * @returns {{kind: 'acquired', release: () => void} | {kind: 'held', owner: {pid: number, started: string}}}
 */
export function acquireLock(file) {
  const mine = JSON.stringify({ pid: process.pid, started: processStart(process.pid) });
  for (;;) {
    if (createFile(file, mine)) return { kind: 'acquired', release: () => release(file, mine) };
    const state = readLock(file);
    if (state.kind === 'held') return state;
    if (state.kind === 'stale') removeStale(file);
    else pause(20);
  }
}

function createFile(file, text) {
  try {
    writeFileSync(file, text, { flag: 'wx' });
    return true;
  } catch (error) {
    if (error.code === 'EEXIST') return false;
    throw error;
  }
}

/** absent: gone again; unfinished: its owner has created but not yet written it; stale: its owner is dead. */
function readLock(file) {
  let text;
  let ageMs;
  try {
    text = readFileSync(file, 'utf8');
    ageMs = Date.now() - statSync(file).mtimeMs;
  } catch (error) {
    if (error.code === 'ENOENT') return { kind: 'absent' };
    throw error;
  }
  const owner = parseOwner(text);
  if (owner === null) return { kind: ageMs > ABANDONED_MS ? 'stale' : 'unfinished' };
  return isRunning(owner) ? { kind: 'held', owner } : { kind: 'stale' };
}

function parseOwner(text) {
  try {
    const owner = JSON.parse(text);
    return Number.isInteger(owner?.pid) && typeof owner.started === 'string' ? owner : null;
  } catch {
    return null; // half written
  }
}

/**
 * Removes the file of a dead owner. Two processes may find it stale at once: without the guard the slower one would
 * remove the lock that the quicker one has just taken. So only the holder of the guard removes, and looks again first.
 */
function removeStale(file) {
  const guard = `${file}.guard`;
  try {
    mkdirSync(guard);
  } catch (error) {
    if (error.code !== 'EEXIST') throw error;
    removeAbandonedGuard(guard);
    return;
  }
  try {
    if (readLock(file).kind === 'stale') rmSync(file, { force: true });
  } finally {
    rmdirSync(guard);
  }
}

function removeAbandonedGuard(guard) {
  try {
    if (Date.now() - statSync(guard).mtimeMs > ABANDONED_MS) rmdirSync(guard);
  } catch (error) {
    if (error.code !== 'ENOENT') throw error; // its holder was quicker
  }
  pause(20);
}

function release(file, mine) {
  try {
    if (readFileSync(file, 'utf8') === mine) rmSync(file);
  } catch (error) {
    if (error.code !== 'ENOENT') throw error; // somebody removed the whole folder: then there is nothing to give back
  }
}

function pause(ms) {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);
}
