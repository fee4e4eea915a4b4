// Who may use the API. One admin key for now; the pages of operators (health, metrics, documentation) are open.

import { createHash, timingSafeEqual } from 'node:crypto';
import type { FastifyRequest } from 'fastify';
import { unauthorized } from './errors.ts';
import type { GatewayParts } from './parts.ts';

const BEARER = /^Bearer +(\S+) *$/i;

/** A hook that lets a request pass or throws 401. */
export function createKeyCheck({
  auth,
  adminKey,
}: GatewayParts['settings']): (request: FastifyRequest) => Promise<void> {
  if (auth === 'off') return async () => undefined;
  if (adminKey === undefined) throw new Error('auth is on and there is no key that could open it');
  const wanted = digest(adminKey);
  return async ({ headers }) => {
    const given = BEARER.exec(headers.authorization ?? '')?.[1] ?? headers['x-api-key'];
    // Digests have one length, so that the comparison tells nothing, not even that.
    if (typeof given !== 'string' || !timingSafeEqual(digest(given), wanted)) throw unauthorized();
  };
}

function digest(key: string): Buffer {
  return createHash('sha256').update(key).digest();
}
