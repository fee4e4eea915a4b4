// The port of one part over its life: free to move until its first start, then as fixed as its clients need it.
import type { PortWish } from './ports.ts';
import type { Server } from './server.ts';

export class PortAnchor {
  #wish: PortWish;

  constructor(what: string, preferred: number) {
    this.#wish = { what, preferred, otherwise: 'any' };
  }

  /** What to ask for now. */
  get wish(): PortWish {
    return this.#wish;
  }

  /** From now on this port and no other: others have learnt the address. */
  settle(port: number): void {
    this.#wish = { ...this.#wish, preferred: port, otherwise: 'stay' };
  }

  /** Settles on the port of a server once it is ready. */
  async keep<T extends Server>(starting: Promise<T>): Promise<T> {
    const server = await starting;
    this.settle(server.port);
    return server;
  }
}
