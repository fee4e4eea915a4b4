// Waiting until a process that was started really serves, or saying why it does not. Probes talk to the server itself.
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import { type Child, describeExit } from './child.ts';
import { listensOn } from './listens-on.ts';
import { isFree, LOOPBACK } from './ports.ts';
import { PortTakenError, StackError } from './stack-error.ts';

const POLL_MS = 50;
const PROBE_MS = 2_000;
const ADDRESS_IN_USE = /address already in use|EADDRINUSE/i;

export type ReadyOptions = {
  /** for messages: "Redis", "worker-1" */
  what: string;
  timeoutMs: number;
  /** where it is to listen; a probe counts only when the process itself does, as far as the system tells */
  ports: readonly number[];
  /** ends the wait and the process */
  signal: AbortSignal;
};

/**
 * Asks the probe until it answers true. A probe that throws is asked again.
 *
 * @throws PortTakenError when the process ended because its port was taken, StackError when it ended otherwise, was not
 *   ready in time or the signal came; the process is gone in every case
 */
export async function waitUntilReady(
  child: Child,
  probe: () => Promise<boolean>,
  { what, timeoutMs, ports, signal }: ReadyOptions,
): Promise<void> {
  const deadline = performance.now() + timeoutMs;
  let last = 'it does not answer';
  while (performance.now() < deadline && !signal.aborted) {
    const ready = await probe().catch((error: unknown) => {
      last = error instanceof Error ? error.message : String(error);
      return false;
    });
    if (child.exit !== undefined) throw await endedEarly(child, what, ports);
    // The answer may be another's, who took the port while our own process was on its way to it.
    if (ready && ports.every((port) => listensOn(child.pid, port))) return;
    await Promise.race([child.exited, delay(POLL_MS)]);
  }
  await child.stop();
  if (signal.aborted) throw new StackError(`${what} was stopped while it was starting`);
  throw new StackError(
    `${what} did not become ready within ${Math.round(timeoutMs / 1000)} s (${last})\n${child.tail()}`,
  );
}

async function endedEarly(child: Child, what: string, ports: readonly number[]): Promise<StackError> {
  const exit = child.exit;
  const reason = exit === undefined ? 'for no known reason' : `with ${describeExit(exit)}`;
  const message = `${what} ended while it was starting, ${reason}\n${child.tail()}`;
  // Whatever it says itself: with a port that somebody else has now, it had no chance.
  const free = await Promise.all(ports.map(isFree));
  const isTaken = ADDRESS_IN_USE.test(child.output()) || free.includes(false);
  return isTaken ? new PortTakenError(message) : new StackError(message);
}

/** Whether something accepts connections. */
export async function acceptsConnections(port: number, host = LOOPBACK): Promise<boolean> {
  const socket = await open(port, host);
  socket.destroy();
  return true;
}

/** Sends one line and answers the first piece that comes back. */
export async function ask(port: number, line: string): Promise<string> {
  const socket = await open(port, LOOPBACK);
  try {
    socket.end(`${line}\r\n`);
    const [data] = await once(socket, 'data', { signal: AbortSignal.timeout(PROBE_MS) });
    return String(data);
  } finally {
    socket.destroy();
  }
}

/** Whether a page answers with status 200. */
export async function answersOk(url: string): Promise<boolean> {
  const response = await fetch(url, { signal: AbortSignal.timeout(PROBE_MS) });
  const text = await response.text();
  if (!response.ok) throw new Error(`${url} answers ${response.status} ${text.slice(0, 300)}`);
  return true;
}

async function open(port: number, host: string): Promise<Socket> {
  const socket = connect({ port, host });
  socket.setTimeout(PROBE_MS, () => socket.destroy(new Error(`no answer from ${host}:${port}`)));
  await once(socket, 'connect');
  return socket;
}
