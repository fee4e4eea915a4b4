// One part of the stack over its whole life: started, watched, started again when it dies, halted and resumed on
// purpose. It knows nothing of what the part is.
import { setTimeout as delay } from 'node:timers/promises';
import { type Child, describeExit, type Exit } from './child.ts';

/** A part that dies within this time of being ready, or never gets ready, died fast. Somebody's SIGKILL is no such death. */
const FAST_DEATH_MS = 5_000;
const MAX_FAST_DEATHS = 5;
const FIRST_PAUSE_MS = 100;
const LONGEST_PAUSE_MS = 5_000;

export type PartOptions<T> = {
  name: string;
  /** starts the part and resolves when it is ready; must leave nothing behind when it rejects or the signal comes */
  start: (signal: AbortSignal) => Promise<T>;
  log: (line: string) => void;
  /** the part is there, or is gone */
  onChange: () => void;
  /** it died too often; it stays down */
  onGiveUp: (message: string) => void;
};

export class Part<T extends { child: Child }> {
  readonly name: string;
  readonly #options: PartOptions<T>;
  #current: T | undefined;
  #last: T | undefined;
  #life = new AbortController();
  #work: Promise<void> = Promise.resolve();
  #fastDeaths = 0;

  constructor(options: PartOptions<T>) {
    this.name = options.name;
    this.#options = options;
  }

  /** What runs now; undefined while it is down. */
  get current(): T | undefined {
    return this.#current;
  }

  /** What ran last, also while it is down: its addresses are those that it will have again. */
  get last(): T | undefined {
    return this.#last;
  }

  /** Ends its supervision and a start that is under way; what runs keeps running until `halt`. */
  retire(): void {
    this.#life.abort();
  }

  /** Starts it for the first time, or again after `halt`. Rejects when it does not get ready. */
  async start(): Promise<T> {
    this.#life = new AbortController();
    this.#fastDeaths = 0;
    return this.#launch(this.#life.signal);
  }

  /** Stops it, or kills it, and keeps it down until `start`. Resolves when nothing of it is left. */
  async halt({ kill = false }: { kill?: boolean } = {}): Promise<void> {
    this.#life.abort();
    const child = this.#current?.child;
    this.#current = undefined;
    if (kill) child?.kill();
    await child?.stop();
    await this.#work;
    if (child !== undefined) this.#options.onChange();
  }

  async #launch(signal: AbortSignal): Promise<T> {
    const started = await this.#options.start(signal);
    this.#current = started;
    this.#last = started;
    this.#options.onChange();
    this.#work = this.#watch(started, signal);
    return started;
  }

  /** Never rejects: what goes wrong is said, and ends in `onGiveUp`. */
  async #watch(started: T, signal: AbortSignal): Promise<void> {
    const { child } = started;
    const readyAt = performance.now();
    const exit = await child.exited;
    if (signal.aborted) return;
    this.#current = undefined;
    this.#options.onChange();
    if (exit.signal === 'SIGKILL' || performance.now() - readyAt >= FAST_DEATH_MS) this.#fastDeaths = 0;
    const report = deathReport(child, exit);
    if (this.#countDeath(report)) return;
    this.#options.log(`${report}\nstarting ${this.name} again`);
    await this.#startAgain(signal);
  }

  async #startAgain(signal: AbortSignal): Promise<void> {
    for (;;) {
      const pause = Math.min(FIRST_PAUSE_MS * 2 ** (this.#fastDeaths - 1), LONGEST_PAUSE_MS);
      await delay(pause, undefined, { signal }).catch(() => undefined); // the signal only ends the wait early
      if (signal.aborted) return;
      try {
        const { child } = await this.#launch(signal);
        this.#options.log(`${this.name} is back (process ${child.pid})`);
        return;
      } catch (error) {
        if (signal.aborted) return;
        const message = error instanceof Error ? error.message : String(error);
        if (this.#countDeath(message)) return;
        this.#options.log(`${message}\nstarting ${this.name} again`);
      }
    }
  }

  /** Counts one more; true when it was one too many, which is then said. */
  #countDeath(report: string): boolean {
    this.#fastDeaths += 1;
    if (this.#fastDeaths < MAX_FAST_DEATHS) return false;
    this.#options.onGiveUp(
      `${this.name} died ${MAX_FAST_DEATHS} times in a row and is given up; the last time:\n${report}`,
    );
    return true;
  }
}

function deathReport(child: Child, exit: Exit): string {
  return `${child.name} (process ${child.pid}) ended with ${describeExit(exit)}; its last lines:\n${child.tail(5)}`;
}
