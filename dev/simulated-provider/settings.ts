// What can be set for all requests at once, at start and while running: limits and pace.

import { type JsonObject, optionalNumber, refuseUnknown } from './body-fields.ts';
import { type Duration, readDuration } from './duration.ts';
import { TOKENS_PER_CHUNK } from './fault.ts';
import type { Limits } from './rate-limits.ts';

export type Settings = Limits & {
  readonly latency: Duration;
  readonly firstTokenMs: Duration;
  readonly chunkDelayMs: Duration;
  readonly tokensPerChunk: number;
};

const AT_ONCE: Duration = { kind: 'fixed', ms: 0 };

/** Limits that no test runs into by chance, and no waiting. */
export const DEFAULT_SETTINGS: Settings = {
  rpm: 60_000,
  tpm: 60_000_000,
  latency: AT_ONCE,
  firstTokenMs: AT_ONCE,
  chunkDelayMs: AT_ONCE,
  tokensPerChunk: 4,
};

const FIELDS = Object.keys(DEFAULT_SETTINGS);
const LIMIT = { min: 1, max: 1e12, integer: true };

/** The settings with those changed that the object names. Throws an error 400 for any that makes no sense. */
export function changeSettings(current: Settings, change: JsonObject): Settings {
  refuseUnknown(change, FIELDS, 'settings');
  return {
    rpm: readLimit(change, 'rpm') ?? current.rpm,
    tpm: readLimit(change, 'tpm') ?? current.tpm,
    latency: readDuration(change, 'latency') ?? current.latency,
    firstTokenMs: readDuration(change, 'firstTokenMs') ?? current.firstTokenMs,
    chunkDelayMs: readDuration(change, 'chunkDelayMs') ?? current.chunkDelayMs,
    tokensPerChunk: optionalNumber(change, 'tokensPerChunk', TOKENS_PER_CHUNK) ?? current.tokensPerChunk,
  };
}

/** Settings as JSON, which has no word for infinity. */
export function settingsToJson(settings: Settings): JsonObject {
  const limit = (value: number) => (value === Infinity ? 'unlimited' : value);
  return { ...settings, rpm: limit(settings.rpm), tpm: limit(settings.tpm) };
}

function readLimit(change: JsonObject, key: 'rpm' | 'tpm'): number | undefined {
  if (change[key] === 'unlimited' || change[key] === Infinity) return Infinity;
  return optionalNumber(change, key, LIMIT);
}
