// What all servers of the stack have in common. Types only.
import type { Child } from './child.ts';
import type { Ports } from './ports.ts';
import type { ProcessTable } from './process-table.ts';

export type StartContext = {
  table: ProcessTable;
  ports: Ports;
  /** the environment that a started program inherits */
  environment: NodeJS.ProcessEnv;
  /** ends a start that is under way */
  signal: AbortSignal;
};

/** A server that is ready. Stop it with `child.stop()`; `child.exited` says when it is gone. */
export type Server = {
  child: Child;
  /** as a client needs it: a URL, or host:port for Temporal */
  address: string;
  port: number;
  /** URL of a page for people, where it has one */
  ui?: string;
};

/** Starts a part; called again after its death, it uses the same port and data. */
export type Start = (context: StartContext) => Promise<Server>;
