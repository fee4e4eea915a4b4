// `weir limits --breakers`: which dependencies serve, and how degraded tasks run.

import type { BreakersView } from '../client/gateway-client.ts';
import type { CliEnvironment } from '../config.ts';
import type { AddressFlags } from './addresses.ts';
import { openGateway } from './connect.ts';
import { dim, say, table } from './print.ts';

export type BreakersOptions = AddressFlags & { readonly json?: boolean };

export async function runBreakers(options: BreakersOptions, environment: CliEnvironment): Promise<void> {
  const view = await openGateway(options, environment).breakers();
  if (options.json === true) say(JSON.stringify(view, null, 2));
  else show(view);
}

function show({ level, down, breakers }: BreakersView): void {
  table(
    [
      { title: 'breaker' },
      { title: 'state' },
      { title: 'failures', right: true },
      { title: 'calls', right: true },
      { title: 'of' },
      { title: 'since' },
      { title: '' },
    ],
    breakers.map(({ name, state, failures, calls, scope, since, retryAfterMs, settings }) => [
      name,
      settings.enabled ? state.replace('_', ' ') : 'off',
      `${failures}`,
      `${calls}`,
      scope === 'fleet' ? 'all processes' : 'the gateway',
      since ?? '–',
      retryAfterMs > 0 ? `a call may try in ${Math.ceil(retryAfterMs / 1_000)} s` : '',
    ]),
  );
  say(dim(level === 'none' ? 'nothing is down' : `degradation ${level}: ${down.join(', ')}`));
}
