// Hears from Postgres when somebody changed a limit, so that what a process remembers about refusals does not outlive its reason.

import pg from 'pg';
import type { Logger } from '../log.ts';
import type { PostgresOptions } from './postgres.ts';

/** The channel is `<schema>.<this>`, its payload the tenant's id. */
export const LIMITS_CHANGED = 'limits_changed';

const AGAIN_MS = 1_000;

export type LimitChanges = AsyncDisposable;

/**
 * Calls `onChange` with the tenant whose limits changed, and with nothing when changes may have been missed (the connection was away).
 * Listens on a connection of its own until disposed.
 */
export function listenForLimitChanges(
  options: Pick<PostgresOptions, 'url' | 'schema'>,
  onChange: (tenantId: string | undefined) => void,
  log: Logger,
): LimitChanges {
  let isClosed = false;
  let client: pg.Client | undefined;
  let timer: NodeJS.Timeout | undefined;
  const lost = (failed: pg.Client, error?: unknown) => {
    if (isClosed || client !== failed) return;
    client = undefined;
    log.debug('the connection that hears of changed limits was lost', { error });
    void failed.end().catch(() => undefined /* it is gone already */);
    timer = setTimeout(connect, AGAIN_MS);
  };
  const connect = () => {
    const next = new pg.Client({ connectionString: options.url, keepAlive: true });
    client = next;
    next.on('error', (error) => lost(next, error));
    next.on('end', () => lost(next));
    next.on('notification', ({ payload }) => onChange(payload));
    next
      .connect()
      .then(() => next.query(`listen "${options.schema}.${LIMITS_CHANGED}"`))
      .then(() => onChange(undefined))
      .catch((error: unknown) => lost(next, error));
  };
  connect();
  return {
    async [Symbol.asyncDispose]() {
      isClosed = true;
      clearTimeout(timer);
      await client?.end();
    },
  };
}
