// A server of one test in place of the gateway: it answers what the test wrote down and keeps what it was asked.

import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

type Asked = {
  readonly method: string;
  readonly path: string;
  readonly headers: IncomingMessage['headers'];
  readonly body: string;
};

/** `count` is how many requests came before. */
export type Answer = (response: ServerResponse, asked: Asked, count: number) => void | Promise<void>;

export type TinyGateway = AsyncDisposable & {
  readonly url: string;
  readonly port: number;
  readonly asked: readonly Asked[];
};

/** @param port 0: a free one */
export async function startTinyGateway(answer: Answer, port = 0): Promise<TinyGateway> {
  const asked: Asked[] = [];
  const server = createServer((request, response) => {
    const serve = async () => {
      let body = '';
      for await (const chunk of request) body += String(chunk);
      const { method = '', url: path = '', headers } = request;
      const one = { method, path, headers, body };
      asked.push(one);
      await answer(response, one, asked.length - 1);
    };
    serve().catch((error: unknown) => response.destroy(error instanceof Error ? error : undefined));
  });
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(port, '127.0.0.1', resolve);
  });
  const address = server.address() as AddressInfo; // a TCP server's address is an AddressInfo
  return {
    url: `http://127.0.0.1:${address.port}`,
    port: address.port,
    asked,
    [Symbol.asyncDispose]: () => close(server),
  };
}

function close(server: Server): Promise<void> {
  return new Promise((resolve) => {
    server.close(() => resolve());
    server.closeAllConnections();
  });
}

export function sendJson(response: ServerResponse, status: number, body: unknown): void {
  response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body));
}

export function sendProblem(response: ServerResponse, status: number, problem: object): void {
  response
    .writeHead(status, { 'content-type': 'application/problem+json' })
    .end(JSON.stringify({ status, ...problem }));
}

/** Begins a stream; events are written by `sendEvent`. */
export function openStream(response: ServerResponse): void {
  response.writeHead(200, { 'content-type': 'text/event-stream' });
  response.flushHeaders();
}

export function sendEvent(response: ServerResponse, seq: number, type: string, data: object = {}): void {
  const event = { taskId: 'task-1', seq, epoch: 1, type, at: '2026-01-01T00:00:00.000Z', ...data };
  response.write(`id: 1-${seq}\nevent: ${type}\ndata: ${JSON.stringify(event)}\n\n`);
}
