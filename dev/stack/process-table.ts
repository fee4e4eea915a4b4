// Every process that a stack starts is started here and noted in a file at once, so that a stack that was killed itself
// can be cleaned up by the next one in the same folder. Nothing is ever signalled by name or by an unproven pid.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  closeSync,
  existsSync,
  fstatSync,
  mkdirSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
} from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { isRunning, type ProcessRecord, processStart } from '../../scripts/process-lock.mjs';
import { Child, type StopRule, signalIfThere } from './child.ts';
import { StackError } from './stack-error.ts';
import { writeFileAtomically } from './state-folder.ts';

export type LaunchSpec = {
  /** part of the log file's name */
  name: string;
  command: string;
  args: readonly string[];
  env: NodeJS.ProcessEnv;
  stop: StopRule;
  cwd?: string;
  /** the account to run as, when it is not ours */
  account?: { uid: number; gid: number } | undefined;
};

type Entry = ProcessRecord & { name: string; signal: NodeJS.Signals };

const LEFTOVER_GRACE_MS = 8_000;

export class ProcessTable {
  readonly logDir: string;
  readonly #file: string;
  readonly #running = new Map<Child, Entry>();
  readonly #rotated = new Set<string>();
  readonly #killAtExit = (): void => this.killAll();
  #closed = false;

  /** @param stateDir an existing folder that only this process uses (see `lockStateFolder`) */
  constructor(stateDir: string) {
    this.logDir = join(stateDir, 'logs');
    this.#file = tableFile(stateDir);
    mkdirSync(this.logDir, { recursive: true });
    // An exception that nobody caught must not leave servers behind; 'exit' is the last moment and only sync code runs.
    process.on('exit', this.#killAtExit);
  }

  /**
   * Starts a process in a session of its own: the terminal's Ctrl-C must reach us only, who know the order of stopping.
   *
   * @throws StackError when the program cannot be started, or the table was closed
   */
  async launch(spec: LaunchSpec): Promise<Child> {
    if (this.#closed) throw new StackError(`${spec.name} was not started: the stack is stopping`);
    const log = this.#openLog(spec.name);
    try {
      const spawned = spawn(spec.command, spec.args, {
        cwd: spec.cwd,
        env: spec.env,
        detached: true,
        stdio: ['ignore', log.descriptor, log.descriptor],
        ...(spec.account ?? {}),
      });
      if (spawned.pid === undefined) {
        const [error] = await once(spawned, 'error');
        throw error;
      }
      const child = new Child(spec.name, spawned as typeof spawned & { pid: number }, log, spec.stop);
      this.#add(child, spec.stop.signal);
      return child;
    } catch (error) {
      if (error instanceof StackError) throw error;
      const reason = error instanceof Error ? error.message : String(error);
      throw new StackError(`${spec.name} cannot be started: ${reason} (${spec.command})`, { cause: error });
    } finally {
      closeSync(log.descriptor);
    }
  }

  /** Kills everything that still runs, at once. */
  killAll(): void {
    for (const child of this.#running.keys()) child.kill();
  }

  /** Refuses further starts, ends what still runs, and forgets the file. Call it last. */
  async close(): Promise<void> {
    this.#closed = true;
    await Promise.all([...this.#running.keys()].map((child) => child.stop()));
    process.off('exit', this.#killAtExit);
    rmSync(this.#file, { force: true });
  }

  #add(child: Child, signal: NodeJS.Signals): void {
    // null: it ended within this very moment; its exit is on the way
    const started = processStart(child.pid) ?? 'ended';
    this.#running.set(child, { name: child.name, pid: child.pid, started, signal });
    this.#write();
    void child.exited.then(() => {
      this.#running.delete(child);
      this.#writeIfPossible();
    });
  }

  #writeIfPossible(): void {
    try {
      this.#write();
    } catch {
      // A full disk: the older record stays, and does no harm, because each pid in it is proven before it is used.
    }
  }

  #write(): void {
    if (this.#running.size === 0 && !existsSync(this.#file)) return;
    writeFileAtomically(this.#file, `${JSON.stringify([...this.#running.values()], null, 2)}\n`);
  }

  /** The log of the run before is kept beside it; restarts within this run are appended. */
  #openLog(name: string): { file: string; start: number; descriptor: number } {
    const file = join(this.logDir, `${name}.log`);
    if (!this.#rotated.has(name) && existsSync(file))
      renameSync(file, join(this.logDir, `${name}.previous.log`));
    this.#rotated.add(name);
    const descriptor = openSync(file, 'a');
    return { file, start: fstatSync(descriptor).size, descriptor };
  }
}

/**
 * Stops what a stack that was killed left running in this folder, first workers and gateway, then the servers. Only
 * processes whose pid and start time are those that were noted are touched. Call it under the folder's lock.
 */
export async function stopLeftovers(stateDir: string, log: (line: string) => void): Promise<void> {
  const entries = readEntries(tableFile(stateDir)).filter(isRunning);
  if (entries.length > 0) {
    const names = entries.map(({ name, pid }) => `${name} (process ${pid})`).join(', ');
    log(`an earlier stack was killed; stopping what it left running: ${names}`);
    const isWorker = ({ name }: Entry) => name.startsWith('worker') || name === 'gateway';
    await endAll(entries.filter(isWorker));
    await endAll(entries.filter((entry) => !isWorker(entry)));
  }
  rmSync(tableFile(stateDir), { force: true });
}

async function endAll(entries: readonly Entry[]): Promise<void> {
  for (const { pid, signal } of entries) signalIfThere(pid, signal);
  const deadline = performance.now() + LEFTOVER_GRACE_MS;
  while (performance.now() < deadline && entries.some(isRunning)) await delay(50);
  const stubborn = entries.filter(isRunning);
  for (const { pid } of stubborn) signalIfThere(-pid, 'SIGKILL');
  while (stubborn.some(isRunning)) await delay(20);
}

function tableFile(stateDir: string): string {
  return join(stateDir, 'processes.json');
}

function readEntries(file: string): Entry[] {
  if (!existsSync(file)) return [];
  // The file is written atomically by this module alone; anything else in it is a fault worth stopping for.
  return JSON.parse(readFileSync(file, 'utf8')) as Entry[];
}
