// The simulated LLM provider as a server: it listens, tells apart control and model requests, and survives whatever one request
// throws. It holds all its state in memory and forgets it when it is closed.

import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { createWriteStream, type WriteStream } from 'node:fs';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { serveControl } from './control.ts';
import { type Duration, seededChance } from './duration.ts';
import { createExchange, readBody } from './exchange.ts';
import { createFaultBook } from './fault-book.ts';
import type { Problem } from './problem.ts';
import { createPromptCache } from './prompt-cache.ts';
import { createRateLimits, type Limits } from './rate-limits.ts';
import { createRequestLog, type LoggedRequest } from './request-log.ts';
import { endpointFor, modelList, styleFor } from './routes.ts';
import { type Provider, sendProblem, serveCall } from './serve-call.ts';
import { changeSettings, DEFAULT_SETTINGS } from './settings.ts';

export type SimulatedProviderOptions = {
  readonly host?: string;
  /** 0 (default) takes a free port. */
  readonly port?: number;
  /** Per minute and model; Infinity for none. */
  readonly limits?: Partial<Limits>;
  /** Before the status line of every response: milliseconds or a distribution. */
  readonly latency?: Duration | number;
  readonly firstTokenMs?: Duration | number;
  readonly chunkDelayMs?: Duration | number;
  readonly tokensPerChunk?: number;
  /** Of distributions and error rates. */
  readonly seed?: number;
  /** Takes the request log as JSON lines. */
  readonly logFile?: string;
};

export type SimulatedProvider = AsyncDisposable & {
  /** Without a path: OpenAI and Anthropic clients want `${url}/v1`, Google's `${url}/v1beta`. */
  readonly url: string;
  readonly port: number;
  /** The request log, oldest first. */
  requests(): LoggedRequest[];
  /** Breaks all connections and frees the port. */
  close(): Promise<void>;
};

const REQUEST_ID = /^[\x21-\x7e]{1,256}$/;

/** Starts a provider. Rejects with the system's error when the port is taken or the log file cannot be written. */
export async function startSimulatedProvider(
  options: SimulatedProviderOptions = {},
): Promise<SimulatedProvider> {
  const { host = '127.0.0.1', port = 0, limits, seed = 1, logFile, ...pace } = options;
  const settings = changeSettings(DEFAULT_SETTINGS, { ...limits, ...pace });
  const chance = seededChance(seed);
  const mirror = logFile === undefined ? undefined : await openMirror(logFile);
  const provider: Provider = {
    settings,
    chance,
    faults: createFaultBook(chance),
    limits: createRateLimits(settings),
    cache: createPromptCache(),
    log: createRequestLog(mirror),
  };
  const server = createServer((request, response) => {
    serve(request, response, provider).catch((error: unknown) => failed(response, error));
  });
  // Longer than any client keeps an idle connection: a server that closes first makes the next request fail for no reason.
  server.keepAliveTimeout = 120_000;
  server.listen(port, host);
  await once(server, 'listening');
  const bound = (server.address() as AddressInfo).port;
  const close = () => closeAll(server, mirror);
  return {
    url: `http://${host.includes(':') ? `[${host}]` : host}:${bound}`,
    port: bound,
    requests: () => provider.log.since(0),
    close,
    [Symbol.asyncDispose]: close,
  };
}

async function serve(request: IncomingMessage, response: ServerResponse, provider: Provider): Promise<void> {
  const url = new URL(`http://provider${request.url?.startsWith('/') ? request.url : '/'}`);
  if (url.pathname.startsWith('/control/')) {
    return serveControl(request, response, { url, provider, readBody: () => readBody(request) });
  }
  if (request.method === 'GET' && url.pathname === '/v1/models') {
    response.writeHead(200, { 'content-type': 'application/json' });
    response.end(JSON.stringify(modelList()));
    return;
  }
  if (request.method !== 'POST') return refuseMethod(request, response, url);
  const given = request.headers['x-request-id'];
  const id = typeof given === 'string' && REQUEST_ID.test(given) ? given : `req_${randomUUID()}`;
  const attempt = request.headers['x-weir-attempt'];
  const attemptKey = typeof attempt === 'string' ? attempt : null;
  const path = url.pathname;
  const exchange = createExchange(request, response, {
    id,
    path,
    entry: provider.log.open({ id, attemptKey, path }),
  });
  const style = styleFor(url);
  const call = endpointFor(url);
  if (call === undefined) return sendProblem(exchange, style, { problem: unknownUrl(request, url) });
  try {
    await serveCall(exchange, call, provider);
  } catch (error) {
    exchange.entry.end('error');
    process.stderr.write(`simulated provider: request ${id} failed: ${String(error)}\n`);
    if (response.headersSent) exchange.destroy();
    else sendProblem(exchange, style, { problem: { status: 500, message: 'the simulated provider failed' } });
  }
}

/** Such a request is none to a model, so it is in no log. */
function refuseMethod(request: IncomingMessage, response: ServerResponse, url: URL): void {
  response.writeHead(404, { 'content-type': 'application/json' });
  response.end(JSON.stringify(styleFor(url).body(unknownUrl(request, url), '')));
}

function unknownUrl(request: IncomingMessage, url: URL): Problem {
  return {
    status: 404,
    message: `${request.method} ${url.pathname} is not served here`,
    code: 'unknown_url',
  };
}

/** The last resort: one request must never take the server down. */
function failed(response: ServerResponse, error: unknown): void {
  process.stderr.write(`simulated provider: ${String(error)}\n`);
  response.destroy();
}

async function openMirror(path: string): Promise<WriteStream> {
  const mirror = createWriteStream(path, { flags: 'a' });
  await once(mirror, 'open');
  mirror.on('error', (error) =>
    process.stderr.write(`simulated provider: the log file failed: ${String(error)}\n`),
  );
  return mirror;
}

async function closeAll(server: Server, mirror: WriteStream | undefined): Promise<void> {
  if (server.listening) {
    const closed = once(server, 'close');
    server.close();
    server.closeAllConnections();
    await closed;
  }
  if (mirror !== undefined && !mirror.closed) {
    const closed = once(mirror, 'close');
    mirror.end();
    await closed;
  }
}
