// One running process of the stack: its exit, its log, and how it is stopped. Who may start one: process-table.ts.
import type { ChildProcess } from 'node:child_process';
import { closeSync, fstatSync, openSync, readSync } from 'node:fs';

const TAIL_BYTES = 16 * 1024;

export type Exit = { code: number | null; signal: NodeJS.Signals | null };

export type StopRule = {
  /** what asks this program to end in good order */
  signal: NodeJS.Signals;
  /** how long it may take; then it is killed with everything it started */
  graceMs: number;
};

/** A process that was started in a session of its own and writes to a log file, so that neither needs us to live. */
export class Child {
  readonly name: string;
  readonly pid: number;
  readonly logFile: string;
  readonly startedAt = performance.now();
  /** resolves when the process is gone; never rejects */
  readonly exited: Promise<Exit>;
  readonly #rule: StopRule;
  readonly #logStart: number;
  #exit: Exit | undefined;

  constructor(
    name: string,
    spawned: ChildProcess & { pid: number },
    log: { file: string; start: number },
    rule: StopRule,
  ) {
    this.name = name;
    this.pid = spawned.pid;
    this.logFile = log.file;
    this.#logStart = log.start;
    this.#rule = rule;
    this.exited = new Promise((resolve) => {
      spawned.once('exit', (code, signal) => {
        this.#exit = { code, signal };
        resolve(this.#exit);
      });
    });
  }

  /** How it ended; undefined while it runs. */
  get exit(): Exit | undefined {
    return this.#exit;
  }

  /** Sends a signal to the process itself; nothing happens when it is gone. */
  signal(signal: NodeJS.Signals): void {
    if (this.#exit === undefined) signalIfThere(this.pid, signal);
  }

  /** Kills the process and whatever it started in its process group. */
  kill(): void {
    if (this.#exit === undefined) signalIfThere(-this.pid, 'SIGKILL');
  }

  /** Asks it to end, waits for the grace time, then kills it. Resolves when it is gone. */
  async stop(): Promise<Exit> {
    this.signal(this.#rule.signal);
    const timer = setTimeout(() => this.kill(), this.#rule.graceMs);
    try {
      return await this.exited;
    } finally {
      clearTimeout(timer);
    }
  }

  /** What this process (not an earlier one of the same name) wrote last, at most 16 KB. */
  output(): string {
    const file = openSync(this.logFile, 'r');
    try {
      const { size } = fstatSync(file);
      const from = Math.max(this.#logStart, size - TAIL_BYTES);
      const buffer = Buffer.alloc(Math.max(0, size - from));
      return buffer.toString('utf8', 0, readSync(file, buffer, 0, buffer.length, from));
    } finally {
      closeSync(file);
    }
  }

  /** The last lines of its output, indented below a message, and where the rest is. */
  tail(lines = 20): string {
    const text = this.output().trimEnd();
    const shown = text === '' ? ['(it wrote nothing)'] : text.split('\n').slice(-lines);
    return [...shown.map((line) => `  ${line}`), `  (log: ${this.logFile})`].join('\n');
  }
}

/** An exit in words: "code 1", "signal SIGKILL". */
export function describeExit({ code, signal }: Exit): string {
  return signal === null ? `code ${code}` : `signal ${signal}`;
}

/** Sends a signal to a process, or to a group when the number is negative. Answers whether there was one. */
export function signalIfThere(pid: number, signal: NodeJS.Signals): boolean {
  try {
    return process.kill(pid, signal);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ESRCH') return false; // it was quicker than us
    throw error;
  }
}
