// The page of a process that has no gateway: metrics of ours and of Temporal's core, and whether the process lives and is ready.

import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { pause } from './calls/pause.ts';

export type Probes = Readonly<Record<string, () => Promise<void>>>;

export type Readiness = {
  readonly ready: boolean;
  readonly checks: Readonly<Record<string, 'ok' | 'failed'>>;
};

const PROBE_MS = 2_000;

/** Really asks every server; one that does not answer within two seconds has failed. */
export async function probeAll(probes: Probes): Promise<Readiness> {
  const checks = await Promise.all(
    Object.entries(probes).map(
      async ([name, probe]) => [name, (await answers(probe)) ? 'ok' : 'failed'] as const,
    ),
  );
  return { ready: checks.every(([, state]) => state === 'ok'), checks: Object.fromEntries(checks) };
}

export type HealthPage = { readonly port: number; close(): Promise<void> };

/** Serves `/metrics`, `/health/live` and `/health/ready`. @throws when the port is taken, naming it */
export async function serveHealth(options: {
  readonly host: string;
  readonly port: number;
  readonly metrics: () => Promise<string>;
  readonly probes: Probes;
}): Promise<HealthPage> {
  const server = createServer((request, response) => {
    const answer = (status: number, type: string, body: string) =>
      response.writeHead(status, { 'content-type': type }).end(body);
    const serve = async () => {
      switch (new URL(request.url ?? '/', 'http://localhost').pathname) {
        case '/metrics':
          return answer(200, 'text/plain; version=0.0.4; charset=utf-8', await options.metrics());
        case '/health/live':
          return answer(200, 'application/json', '{"live":true}');
        case '/health/ready': {
          const readiness = await probeAll(options.probes);
          return answer(readiness.ready ? 200 : 503, 'application/json', JSON.stringify(readiness));
        }
        default:
          return answer(404, 'application/json', '{"error":"not found"}');
      }
    };
    serve().catch(() => answer(500, 'application/json', '{"error":"the page could not be made"}'));
  });
  await listen(server, options);
  return {
    port: (server.address() as AddressInfo).port, // a TCP server's address is an AddressInfo
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

async function answers(probe: () => Promise<void>): Promise<boolean> {
  const late = pause(PROBE_MS).then(() => false);
  const asked = probe().then(
    () => true,
    () => false,
  );
  return Promise.race([asked, late]);
}

function listen(server: Server, { host, port }: { host: string; port: number }): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', (error: NodeJS.ErrnoException) =>
      reject(
        error.code === 'EADDRINUSE'
          ? new Error(
              `port ${port} on ${host} is in use: set METRICS_PORT to another one, or 0 for a free one`,
              { cause: error },
            )
          : error,
      ),
    );
    server.listen(port, host, () => resolve());
  });
}
