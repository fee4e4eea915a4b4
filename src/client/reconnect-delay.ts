// When a reader whose connection was lost comes back: not with all the others, since a gateway that dies drops its readers in one
// instant, and later each time that nothing came of it. Pure; the chance is passed in.

/** Where the gateway asked for nothing, and the least that is kept to whatever it asks for: `retry: 0` must not become a busy loop. */
const FIRST_MS = 100;
/** Tries go on for ever, so they must not become rare. */
const MAX_GROWN_MS = 5_000;
/** The most that the gateway may ask for. */
const MAX_TOLD_MS = 60_000;

export type Reconnect = {
  /** Tries that came to nothing since the last event. */
  readonly tries: number;
  /** The last `retry:` of the stream, in milliseconds. */
  readonly retryMs: number | undefined;
  /** What a refusal asked for (`Retry-After`): not before it is over. Milliseconds. */
  readonly retryAfterMs: number | undefined;
  /** From 0 to below 1. */
  readonly random: number;
};

/** Milliseconds: from half to one and a half times what the try is due, so that many readers are spread evenly over that time. */
export function reconnectDelay({ tries, retryMs, retryAfterMs = 0, random }: Reconnect): number {
  const first = Math.min(MAX_TOLD_MS, Math.max(FIRST_MS, retryMs ?? FIRST_MS));
  const due = Math.max(first, Math.min(MAX_GROWN_MS, first * 2 ** tries));
  return Math.round(Math.min(MAX_TOLD_MS, retryAfterMs) + due * (0.5 + random));
}
