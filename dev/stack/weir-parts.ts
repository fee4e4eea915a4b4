// The gateway and the workers of a stack as parts: which command, which port, and what each is told of itself.
import { isIPv6 } from 'node:net';
import { PortAnchor } from './port-anchor.ts';
import { LOOPBACK, type PortWish } from './ports.ts';
import type { Start } from './server.ts';
import type { ResolvedOptions } from './stack-options.ts';
import { startWeirProcess } from './weir-process.ts';

/** How to start the gateway; started again it comes back on its port, which clients have learnt. */
export function gatewayStart({ commands, ports, gatewayHost, graceMs }: ResolvedOptions): Start {
  const port = new PortAnchor('the gateway', ports.gateway);
  const host = clientHost(gatewayHost);
  return (context) =>
    port.keep(
      startWeirProcess(context, {
        ...{ name: 'gateway', command: commands.gateway, host, port: port.wish, graceMs },
        variables: (number) => ({
          WEIR_GATEWAY_HOST: gatewayHost,
          WEIR_GATEWAY_PORT: String(number),
          METRICS_PORT: undefined, // its metrics are on its own port, and this one is the first worker's
        }),
      }),
    );
}

/** How to start the worker of an index; started again it may come back on another port, which only scrapers read. */
export function workerStart({ commands, ports, graceMs }: ResolvedOptions, index: number): Start {
  const name = `worker-${index + 1}`;
  const preferred = ports.metrics === 0 ? 0 : ports.metrics + index;
  let wish: PortWish = { what: `the metrics page of ${name}`, preferred, otherwise: 'next' };
  let known: number | undefined;
  return async (context) => {
    if (known !== undefined) context.ports.release(known);
    const server = await startWeirProcess(context, {
      ...{ name, command: commands.worker, host: LOOPBACK, port: wish, graceMs },
      variables: (number) => ({ METRICS_HOST: LOOPBACK, METRICS_PORT: String(number) }),
    });
    known = server.port;
    wish = { ...wish, preferred: known };
    return server;
  };
}

/** A client on this machine cannot connect to "every address". */
function clientHost(host: string): string {
  if (host === '0.0.0.0') return LOOPBACK;
  if (host === '::') return '[::1]';
  return isIPv6(host) ? `[${host}]` : host;
}
