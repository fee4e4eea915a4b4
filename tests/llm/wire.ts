// A provider of a few lines for one test: it answers what it is told and remembers what it was asked. Not the simulated provider,
// so that the bytes of each case stand in its test.

import { once } from 'node:events';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { type AddressInfo, createServer as createTcpServer, type Server, type Socket } from 'node:net';
import { text } from 'node:stream/consumers';
import type { ModelRequest } from '../../src/llm/language-model.ts';
import { createLanguageModels, type LanguageModelsOptions } from '../../src/llm/models.ts';
import type { ProviderAccess } from '../../src/llm/protocol.ts';

export type WireRequest = {
  readonly path: string;
  readonly headers: IncomingMessage['headers'];
  // biome-ignore lint/suspicious/noExplicitAny: whatever came over the wire
  readonly body: any;
};

export type Wire = AsyncDisposable & {
  readonly url: string;
  readonly requests: WireRequest[];
  /** Connections that were ever made. */
  connections(): number;
};

type Answer = (response: ServerResponse, request: IncomingMessage) => void;

export async function startWire(answer: Answer): Promise<Wire> {
  const requests: WireRequest[] = [];
  let connections = 0;
  const server = createServer((request, response) => {
    void text(request).then(
      (body) => {
        requests.push({ path: request.url ?? '', headers: request.headers, body: JSON.parse(body) });
        answer(response, request);
      },
      () => response.destroy(),
    );
  });
  server.on('connection', () => connections++);
  const { url, close } = await listen(server);
  return {
    url,
    requests,
    connections: () => connections,
    [Symbol.asyncDispose]: async () => {
      server.closeAllConnections();
      await close();
    },
  };
}

/** Bytes by hand, for what no HTTP server would do. */
export async function startTcp(
  onConnection: (socket: Socket) => void,
): Promise<AsyncDisposable & { readonly port: number }> {
  const sockets = new Set<Socket>();
  const server = createTcpServer((socket) => {
    sockets.add(socket);
    socket.on('error', () => socket.destroy());
    onConnection(socket);
  });
  const { url, close } = await listen(server);
  return {
    port: Number(new URL(url).port),
    [Symbol.asyncDispose]: async () => {
      for (const socket of sockets) socket.destroy();
      await close();
    },
  };
}

async function listen(server: Server) {
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  const close = async () => {
    server.close();
    await once(server, 'close');
  };
  return { url: `http://127.0.0.1:${port}`, close };
}

/** A whole event stream: a string is a line of its own making, anything else becomes JSON data. */
export function sse(...events: readonly unknown[]): string {
  return events
    .map((event) => (typeof event === 'string' ? `${event}\n\n` : `data: ${JSON.stringify(event)}\n\n`))
    .join('');
}

/** Anthropic names each event twice. */
export function anthropicSse(
  ...events: readonly { readonly type: string; readonly [field: string]: unknown }[]
): string {
  return events.map((event) => `event: ${event.type}\ndata: ${JSON.stringify(event)}\n\n`).join('');
}

export const stream =
  (body: string, headers: Readonly<Record<string, string>> = {}): Answer =>
  (response) => {
    response.writeHead(200, { 'content-type': 'text/event-stream', ...headers });
    response.end(body);
  };

export const refuse =
  (status: number, body: unknown, headers: Readonly<Record<string, string>> = {}): Answer =>
  (response) => {
    response.writeHead(status, { 'content-type': 'application/json', ...headers });
    response.end(typeof body === 'string' ? body : JSON.stringify(body));
  };

/** OpenAI's chunk with one choice. */
export const chunk = (delta: object, finishReason: string | null = null, more: object = {}) => ({
  id: 'chatcmpl-1',
  object: 'chat.completion.chunk',
  created: 1_700_000_000,
  model: 'm',
  choices: [{ index: 0, delta, finish_reason: finishReason }],
  ...more,
});

export const usageChunk = (usage: object) => ({
  id: 'chatcmpl-1',
  object: 'chat.completion.chunk',
  created: 1_700_000_000,
  model: 'm',
  choices: [],
  usage,
});

export type Call = { readonly pieces: string[]; progress: number; readonly request: ModelRequest };

/** A request that keeps what its callbacks are told. */
export function callFor(model: string, more: Partial<ModelRequest> = {}): Call {
  const call: Call = {
    pieces: [],
    progress: 0,
    request: {
      model,
      messages: [{ role: 'user', content: 'Say hello.' }],
      maxOutputTokens: 50,
      attemptKey: 't1:r1:s1:1#0.1.1.1',
      signal: new AbortController().signal,
      onText: (piece) => call.pieces.push(piece),
      onProgress: () => {
        call.progress++;
      },
      ...more,
    },
  };
  return call;
}

export function modelsAt(
  url: string,
  protocol: ProviderAccess['protocol'] = 'openai',
  onWarning?: (warning: { readonly model: string; readonly text: string }) => void,
  more: Partial<Omit<LanguageModelsOptions, 'providers'>> & { readonly apiKeys?: readonly string[] } = {},
) {
  const { apiKeys = ['sk-test'], ...options } = more;
  const path = { openai: '/v1', 'openai-compatible': '/v1', anthropic: '/v1', google: '/v1beta' }[protocol];
  return createLanguageModels({
    providers: { p: { protocol, apiKeys, baseUrl: `${url}${path}`, available: true } },
    ...options,
    ...(onWarning === undefined ? {} : { onWarning }),
  });
}
