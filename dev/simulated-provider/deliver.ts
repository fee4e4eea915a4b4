// Sends an answer at its pace, and breaks it where a fault says so. The log entry is brought up to date with every piece, so that
// it says what was sent even when the client dies in the middle.

import { type Chance, type Duration, drawMs } from './duration.ts';
import type { Exchange } from './exchange.ts';
import type { Fault } from './fault.ts';
import { type Problem, ProblemError } from './problem.ts';
import type { Delivery } from './wire/endpoint.ts';

type Pace = { readonly firstTokenMs: Duration; readonly chunkDelayMs: Duration };

export type DeliveryPlan = {
  readonly delivery: Delivery;
  /** Output tokens that are out after each piece. */
  readonly tokensAfter: readonly number[];
  readonly fault: Fault;
  readonly pace: Pace;
  readonly chance: Chance;
  readonly headers: Record<string, string>;
};

/**
 * What a client has not read when its connection breaks is lost to it. This much time lets it read the pieces that it was meant to
 * get; nothing depends on it.
 */
const READING_MS = 15;

type Interruption = { readonly kind: 'cut' | 'error' | 'hang'; readonly after: number };

export async function deliverStream(exchange: Exchange, plan: DeliveryPlan): Promise<void> {
  const parts = plan.delivery.stream();
  const interruption = interruptionOf(plan.fault, parts.pieces.length);
  exchange.begin(200, {
    ...plan.headers,
    'content-type': 'text/event-stream; charset=utf-8',
    'cache-control': 'no-cache',
  });
  await exchange.write(parts.opening);
  for (const [index, piece] of parts.pieces.entries()) {
    if (interruption?.after === index) break;
    await exchange.pause(drawMs(index === 0 ? plan.pace.firstTokenMs : plan.pace.chunkDelayMs, plan.chance));
    await exchange.write(piece);
    noteSent(exchange, plan, index);
  }
  if (interruption === undefined) {
    exchange.end(parts.closing);
    return;
  }
  if (interruption.kind === 'error') {
    exchange.entry.end('error');
    exchange.end(parts.error(inStreamProblem(plan.fault), interruption.after));
    return;
  }
  await breakOff(exchange, interruption, plan.fault);
}

/** Takes as long as the same answer streamed. */
export async function deliverWhole(exchange: Exchange, plan: DeliveryPlan): Promise<void> {
  const pieces = plan.tokensAfter.length;
  const interruption = interruptionOf(plan.fault, pieces);
  const waits = Array.from({ length: interruption?.after ?? pieces }, (_, index) =>
    drawMs(index === 0 ? plan.pace.firstTokenMs : plan.pace.chunkDelayMs, plan.chance),
  );
  await exchange.pause(waits.reduce((sum, ms) => sum + ms, 0));
  if (interruption?.kind === 'error') throw new ProblemError(inStreamProblem(plan.fault));

  const body = JSON.stringify(plan.delivery.whole());
  const headers = { ...plan.headers, 'content-type': 'application/json' };
  if (interruption === undefined) {
    exchange.begin(200, { ...headers, 'content-length': String(Buffer.byteLength(body)) });
    noteSent(exchange, plan, pieces - 1);
    exchange.end(body);
    return;
  }
  // A body that is broken off says nothing that a client could use: it counts as no tokens sent.
  exchange.begin(200, headers);
  await exchange.write(
    body.slice(0, Math.floor(((body.length - 1) * interruption.after) / Math.max(1, pieces))),
  );
  await breakOff(exchange, interruption, plan.fault);
}

/** The first thing that goes wrong with an answer of so many pieces. A short answer is broken before its end all the same. */
function interruptionOf(fault: Fault, pieces: number): Interruption | undefined {
  const hangAfter = typeof fault.hang === 'object' ? fault.hang.afterChunks : undefined;
  const wanted: readonly [Interruption['kind'], number | undefined][] = [
    ['cut', fault.cutAfterChunks],
    ['error', fault.errorInStreamAfterChunks],
    ['hang', hangAfter],
  ];
  return wanted
    .flatMap(([kind, after]) => (after === undefined ? [] : [{ kind, after: Math.min(after, pieces) }]))
    .toSorted((left, right) => left.after - right.after)[0];
}

async function breakOff(exchange: Exchange, interruption: Interruption, fault: Fault): Promise<void> {
  if (interruption.kind === 'hang') {
    exchange.entry.end('hung');
    return exchange.untilGone();
  }
  exchange.entry.end('cut');
  if (fault.terminator === true) return exchange.end();
  await exchange.pause(READING_MS);
  exchange.destroy();
}

function noteSent(exchange: Exchange, plan: DeliveryPlan, index: number): void {
  const outputTokens = plan.tokensAfter[index] ?? 0;
  const usage = { ...plan.delivery.usage, outputTokens };
  exchange.entry.update({ outputTokensSent: outputTokens, usage });
}

function inStreamProblem(fault: Fault): Problem {
  return {
    status: fault.status ?? 500,
    message: fault.message ?? 'the provider failed while it was answering',
    code: fault.code,
    retryAfterMs: fault.retryAfterMs,
  };
}
