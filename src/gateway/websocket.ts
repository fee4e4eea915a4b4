// The same stream of a task's events over a WebSocket: one envelope a message, pings as heartbeat, closed with 1000 after `stream_end`.
// What a client sends is not read. A request that cannot be served is answered before it becomes a socket.

import type { Socket } from 'node:net';
import websocket, { type WebSocket } from '@fastify/websocket';
import { type Delivery, deliver, type Outlet } from './deliver.ts';
import { foreignPage, upgradeRequired } from './errors.ts';
import type { App, RouteParts } from './parts.ts';
import { problemAnswer } from './schemas.ts';
import { assertKnown, followRequest, readStreamRequest, streamQuery, taskParams } from './stream-request.ts';
import { encodeMessages } from './websocket-frames.ts';

/** Nothing that a client may say is longer. */
const MAX_MESSAGE_BYTES = 4_096;
/** How long a closing handshake may take. */
const GOODBYE_MS = 5_000;

const CLOSE = {
  over: { code: 1000, reason: 'stream_end' },
  stopped: { code: 1001, reason: 'the gateway stops, come back' },
  slow: { code: 1013, reason: 'too far behind, come back with the last id' },
  failed: { code: 1011, reason: 'the stream broke, come back with the last id' },
} as const;

/** Before the routes. */
export async function registerWebsockets(app: App): Promise<void> {
  await app.register(websocket, {
    options: { maxPayload: MAX_MESSAGE_BYTES, perMessageDeflate: false, clientTracking: false },
    // The library has answered it by closing, or the connection is gone.
    errorHandler: () => undefined,
    // Streams are ended by whoever keeps them.
    preClose: (done) => done(),
  });
}

export function registerWebsocket(app: App, parts: RouteParts): void {
  app.route({
    method: 'GET',
    url: '/tasks/:taskId/ws',
    exposeHeadRoute: false,
    schema: {
      tags: ['tasks'],
      summary: 'Follow a task (WebSocket)',
      description:
        'The envelopes of `/stream` as JSON, one text message each; closed with 1000 after `stream_end`, with 1013 when the reader is too far ' +
        'behind, with 1001 when the gateway stops. Come back with `?after=<epoch>-<seq>` of the last event.',
      params: taskParams,
      querystring: streamQuery,
      response: { default: problemAnswer },
    },
    preHandler: async (request, reply) => {
      if (!request.ws) return;
      if (parts.settings.auth === 'off') assertOwnPage(request.headers.origin);
      readStreamRequest(request);
      await assertKnown(parts, request.params.taskId);
      parts.streams.adopt(reply.raw);
    },
    handler: async () => {
      throw upgradeRequired();
    },
    wsHandler: async (socket, request) => {
      const { taskId } = taskParams.parse(request.params);
      const asked = readStreamRequest({ headers: request.headers, query: streamQuery.parse(request.query) });
      await sendMessages(socket, request.raw.socket, {
        streams: parts.streams,
        events: followRequest(parts, taskId, asked),
        onFault: (error) => parts.log.error('a stream broke', { taskId, error }),
      });
    },
  });
}

type MessageOptions = Omit<Delivery, 'gone'> & { readonly onFault: (error: unknown) => void };

/** Resolves when the connection has ended, whoever ended it. */
async function sendMessages(
  peer: WebSocket,
  socket: Socket,
  { onFault, ...options }: MessageOptions,
): Promise<void> {
  const gone = new AbortController();
  const closed = new Promise<void>((resolve) => {
    peer.once('close', () => {
      gone.abort();
      resolve();
    });
  });
  const outlet = toOutlet(peer, socket);
  await options.streams.run(outlet, async () => {
    const end = await deliver(outlet, { ...options, gone: gone.signal }).catch((error: unknown) => {
      onFault(error);
      return 'failed' as const;
    });
    if (end !== 'gone') peer.close(CLOSE[end].code, CLOSE[end].reason);
    const late = setTimeout(() => peer.terminate(), GOODBYE_MS);
    await closed;
    clearTimeout(late);
  });
}

/** Messages are written past the library, which would frame each for every reader; it writes nothing between that takes its time. */
function toOutlet(peer: WebSocket, socket: Socket): Outlet {
  let isAnswered = true;
  peer.on('pong', () => {
    isAnswered = true;
  });
  return {
    write: (batch) => peer.readyState !== peer.OPEN || socket.write(batch.encode(encodeMessages)),
    isFull: () => socket.writableNeedDrain,
    emitter: () => socket,
    unsent: () => socket.writableLength,
    sent: () => socket.bytesWritten - socket.writableLength,
    beat: () => {
      if (peer.readyState !== peer.OPEN || socket.writableNeedDrain) return;
      if (!isAnswered) return peer.terminate();
      isAnswered = false;
      peer.ping();
    },
    cut: () => peer.terminate(),
  };
}

/** A browser lets any page open a WebSocket anywhere, and without keys nothing else tells pages of strangers from one's own. */
function assertOwnPage(origin: string | undefined): void {
  if (origin === undefined) return;
  const host = URL.canParse(origin) ? new URL(origin).hostname : '';
  if (!/^(localhost|127(\.\d{1,3}){3}|\[::1\])$/.test(host)) throw foreignPage(origin);
}
