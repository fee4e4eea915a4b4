// The header `Prefer: wait=N` (RFC 7240): a client that would rather wait a little than ask again.

export const MAX_WAIT_SECONDS = 60;

/** Seconds to wait, at most a minute; undefined without the preference. What cannot be read is ignored, as the RFC asks. */
export function preferredWait(header: string | readonly string[] | undefined): number | undefined {
  const text = typeof header === 'string' ? header : (header ?? []).join(',');
  const match = /(?:^|[,;])\s*wait\s*=\s*"?(\d{1,9})"?\s*(?=$|[,;])/i.exec(text);
  return match === null ? undefined : Math.min(Number(match[1]), MAX_WAIT_SECONDS);
}
