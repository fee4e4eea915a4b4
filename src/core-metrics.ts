// The series of Temporal's core. Core serves them on a port of its own; the process's one page reads them from there.

import { createServer } from 'node:net';

const READ_MS = 2_000;

/** Options for Temporal's Runtime, and how to read what it serves then. The port is on loopback and nobody else's concern. */
export async function createCoreMetrics() {
  const bindAddress = `127.0.0.1:${await freePort()}`;
  return {
    options: { bindAddress, countersTotalSuffix: true, unitSuffix: true, useSecondsForDurations: true },
    /** Prometheus text. */
    async read(): Promise<string> {
      const response = await fetch(`http://${bindAddress}/metrics`, { signal: AbortSignal.timeout(READ_MS) });
      return response.text();
    },
  };
}

function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once('error', reject);
    server.listen(0, '127.0.0.1', () => {
      const address = server.address();
      const port = typeof address === 'object' && address !== null ? address.port : 0;
      server.close(() => resolve(port));
    });
  });
}
