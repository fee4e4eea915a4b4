// One request and its response: when the client goes, writing so that it is noticed, and the log entry that follows along. The only
// place that touches the socket.

import type { IncomingMessage, ServerResponse } from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';
import { ProblemError } from './problem.ts';
import type { OpenEntry } from './request-log.ts';

const BODY_BYTES = 32 * 1024 * 1024;

/** Ends the serving of a request whose client left. Nothing is wrong and nobody is there to be told. */
export class ClientGone extends Error {}

export type Exchange = {
  readonly request: IncomingMessage;
  readonly id: string;
  readonly path: string;
  readonly entry: OpenEntry;
  /** The whole body as text. */
  readBody(): Promise<string>;
  /** Waits, unless the client goes first. */
  pause(ms: number): Promise<void>;
  /** Status line and headers, at once. */
  begin(status: number, headers: Record<string, string>): void;
  /** Resolves when the text was handed to the system: what is cut off afterwards was sent before. */
  write(text: string): Promise<void>;
  end(text?: string): void;
  /** Breaks the connection without ending the response. */
  destroy(): void;
  /** Never resolves; rejects when the client goes. */
  untilGone(): Promise<void>;
};

export function createExchange(
  request: IncomingMessage,
  response: ServerResponse,
  about: { readonly id: string; readonly path: string; readonly entry: OpenEntry },
): Exchange {
  const gone = new AbortController();
  const waiting = new Set<() => void>();
  response.once('finish', () => about.entry.end('completed'));
  response.once('close', () => {
    about.entry.end('client_gone');
    gone.abort();
    for (const leave of waiting) leave();
  });

  /** Rejects when the client goes, unless the work was done before. */
  function unlessGone(start: (done: (failed: boolean) => void) => void): Promise<void> {
    return new Promise((resolve, reject) => {
      const leave = () => reject(new ClientGone());
      if (gone.signal.aborted) return leave();
      waiting.add(leave);
      start((failed) => {
        waiting.delete(leave);
        if (failed) leave();
        else resolve();
      });
    });
  }

  return {
    ...about,
    request,
    readBody: () => readBody(request),
    async pause(ms) {
      if (ms <= 0) return;
      try {
        await sleep(ms, undefined, { signal: gone.signal });
      } catch {
        // The signal is the only thing that ends a sleep early.
        throw new ClientGone();
      }
    },
    begin(status, headers) {
      response.writeHead(status, headers);
      response.flushHeaders();
      about.entry.update({ status });
    },
    write(text) {
      if (text === '') return Promise.resolve();
      return unlessGone((done) => {
        response.write(text, (error) => done(error !== null && error !== undefined));
      });
    },
    end(text) {
      response.end(text);
    },
    destroy() {
      response.socket?.destroy();
    },
    untilGone: () => unlessGone(() => undefined),
  };
}

export async function readBody(request: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  try {
    for await (const chunk of request) {
      const buffer = Buffer.from(chunk);
      bytes += buffer.length;
      if (bytes > BODY_BYTES)
        throw new ProblemError({ status: 413, message: `the body is larger than ${BODY_BYTES} bytes` });
      chunks.push(buffer);
    }
  } catch (error) {
    if (error instanceof ProblemError) throw error;
    throw new ClientGone();
  }
  return Buffer.concat(chunks).toString('utf8');
}
