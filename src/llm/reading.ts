// Takes the parts of one stream in order and keeps what a reply, or the charge for a failed attempt, needs of them. Judges nothing.

import type { FinishReason, TextStreamPart, ToolSet } from 'ai';
import type { Usage } from '../task/usage.ts';
import type { Protocol } from './protocol.ts';
import { countsOutput, rawUsageOf, toUsage } from './usage.ts';

/** Where a stream stands. */
export type Reading = {
  /** Visible text so far: exactly what was handed to `onText`. */
  readonly text: string;
  /** All that was generated so far, reasoning and tool calls included. */
  readonly outputText: string;
  readonly hasOutput: boolean;
  readonly usage: Usage | undefined;
  /** Whether `usage` counts all of `outputText`. */
  readonly isUsageCurrent: boolean;
  /** Why the stream says that it ended; undefined before its end. */
  readonly finishReason: FinishReason | undefined;
  /** The error that stood in the stream. */
  readonly error: unknown;
};

export type Reader = {
  readonly reading: Reading;
  /** False once nothing more is worth reading. */
  take(part: TextStreamPart<ToolSet>): boolean;
};

/** Protocols that report usage along the way, so that an attempt which fails later is charged what they measured. */
export function reportsUsageEarly(protocol: Protocol): boolean {
  return protocol === 'anthropic' || protocol === 'google';
}

/** @param onText called for every piece of visible text that is not empty */
export function createReader(protocol: Protocol, onText: (text: string) => void): Reader {
  const reading: { -readonly [K in keyof Reading]: Reading[K] } = {
    text: '',
    outputText: '',
    hasOutput: false,
    usage: undefined,
    isUsageCurrent: false,
    finishReason: undefined,
    error: undefined,
  };
  let rawUsage: Readonly<Record<string, unknown>> | undefined;
  // Of the chunk whose parts are being taken: its own text is covered by its own count.
  let chunkCountsOutput = false;

  const takeUsage = (raw: Readonly<Record<string, unknown>> | undefined) => {
    if (raw === undefined) return;
    // A later event may name a count without a value: it takes nothing back.
    const counts = Object.entries(raw).filter(([, value]) => value !== null && value !== undefined);
    rawUsage = { ...rawUsage, ...Object.fromEntries(counts) };
    reading.usage = toUsage(protocol, rawUsage);
  };
  const takeOutput = (text: string) => {
    if (text === '') return;
    reading.outputText += text;
    reading.hasOutput = true;
    reading.isUsageCurrent = chunkCountsOutput;
  };
  const takePart = (part: TextStreamPart<ToolSet>): boolean => {
    switch (part.type) {
      case 'text-delta':
        takeOutput(part.text);
        reading.text += part.text;
        if (part.text !== '') onText(part.text);
        return true;
      case 'reasoning-delta':
        takeOutput(part.text);
        return true;
      case 'tool-input-delta':
        takeOutput(part.delta);
        return true;
      case 'raw': {
        const raw = rawUsageOf(protocol, part.rawValue);
        takeUsage(raw);
        chunkCountsOutput = countsOutput(protocol, raw);
        if (chunkCountsOutput) reading.isUsageCurrent = true;
        return true;
      }
      case 'error':
        reading.error = part.error;
        return false;
      case 'finish':
        reading.finishReason = part.finishReason;
        // Where raw chunks were read and held no usage, the AI SDK's zeros are of its own making.
        if (rawUsage !== undefined || !reportsUsageEarly(protocol)) takeUsage(part.totalUsage.raw);
        return true;
      default:
        return true;
    }
  };
  return { reading, take: takePart };
}
