// Which ports the parts of a stack listen on. A port is only ever proven free by binding it, and may be gone a moment
// later: whoever starts a server on one reports that by PortTakenError and gets another.
import { createServer } from 'node:net';
import { PortTakenError } from './stack-error.ts';

export const LOOPBACK = '127.0.0.1';
const TRIES = 5;
const SEARCH_UPWARDS = 100;

export type PortWish = {
  /** for the line that says it moved */
  what: string;
  /** 0: any free port */
  preferred: number;
  /** any: a free one as the system gives it; next: the next free number, so that a row of workers is easy to find; stay: this port or none */
  otherwise: 'any' | 'next' | 'stay';
};

export class Ports {
  readonly #given = new Set<number>();
  readonly #log: (line: string) => void;
  /** never rejects: binding answers null */
  #last: Promise<unknown> = Promise.resolve();

  constructor(log: (line: string) => void) {
    this.#log = log;
  }

  /**
   * Chooses a port for each wish and starts a server on them; chooses again when one was taken in between.
   *
   * @throws whatever `start` throws, PortTakenError after five attempts or when a port may not move
   */
  async use<T>(wishes: readonly PortWish[], start: (ports: number[]) => Promise<T>): Promise<T> {
    const mayMove = wishes.some(({ otherwise }) => otherwise !== 'stay');
    for (let attempt = 1; ; attempt += 1) {
      const ports: number[] = [];
      for (const wish of wishes) ports.push(await this.#choose(wish));
      try {
        const started = await start(ports);
        this.#sayMoved(wishes, ports);
        return started;
      } catch (error) {
        // A port that failed stays in #given and is not chosen again.
        if (!(error instanceof PortTakenError) || attempt === TRIES || !mayMove) throw error;
      }
    }
  }

  /** Gives a port back whose server is gone, so that it may be wished for again. */
  release(port: number): void {
    this.#given.delete(port);
  }

  /** One at a time: two that look at the same port at once would both find it free. */
  #choose(wish: PortWish): Promise<number> {
    const chosen = this.#last.then(() => this.#search(wish));
    this.#last = chosen;
    return chosen;
  }

  async #search({ preferred, otherwise }: PortWish): Promise<number> {
    if (otherwise === 'stay') return preferred;
    const last = otherwise === 'next' && preferred !== 0 ? preferred + SEARCH_UPWARDS : preferred;
    for (let port = preferred; port <= last && port !== 0; port += 1) {
      if (!this.#given.has(port) && (await isFree(port))) return this.#give(port);
    }
    for (;;) {
      const port = await bind(0);
      if (port !== null && !this.#given.has(port)) return this.#give(port);
    }
  }

  #give(port: number): number {
    this.#given.add(port);
    return port;
  }

  #sayMoved(wishes: readonly PortWish[], ports: readonly number[]): void {
    for (const [index, { what, preferred }] of wishes.entries()) {
      const port = ports[index];
      if (preferred !== 0 && port !== preferred)
        this.#log(`port ${preferred} is taken: ${what} is on ${port}`);
    }
  }
}

/** Whether the port can be listened on at this moment. */
export async function isFree(port: number): Promise<boolean> {
  return (await bind(port)) !== null;
}

/** Binds for a moment; answers the port, or null when it is taken or not ours to use. */
function bind(port: number): Promise<number | null> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once('error', () => resolve(null));
    server.listen({ port, host: LOOPBACK, exclusive: true }, () => {
      const address = server.address();
      const bound = typeof address === 'object' && address !== null ? address.port : null;
      server.close(() => resolve(bound));
    });
  });
}
