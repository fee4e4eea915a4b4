// A TCP relay in front of a server, whose connections a test can cut as a network does.

import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';

export type Relay = AsyncDisposable & {
  readonly port: number;
  /** Resets connections of this moment, all or a random share of them; answers how many. New ones are taken. */
  cut(share?: number): number;
};

/** Listens on a free port of 127.0.0.1 and passes everything on to `port` there. */
export async function startRelay(port: number): Promise<Relay> {
  const open = new Set<readonly [Socket, Socket]>();
  const server = createServer((client) => {
    const upstream = connect(port, '127.0.0.1');
    const pair = [client, upstream] as const;
    open.add(pair);
    for (const socket of pair) {
      socket.setNoDelay(true);
      socket.on('error', () => undefined /* the test, or whoever left, cut it */);
      socket.once('close', () => {
        open.delete(pair);
        for (const one of pair) one.destroy();
      });
    }
    client.pipe(upstream);
    upstream.pipe(client);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const cut = (share = 1) => {
    const pairs = [...open].filter(() => Math.random() < share);
    for (const [client, upstream] of pairs) {
      client.resetAndDestroy();
      upstream.destroy();
    }
    return pairs.length;
  };
  return {
    port: (server.address() as AddressInfo).port, // a TCP server's address is an AddressInfo
    cut,
    async [Symbol.asyncDispose]() {
      server.close();
      cut();
      await once(server, 'close');
    },
  };
}
