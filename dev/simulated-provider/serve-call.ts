// Serves one request to a model, whatever its dialect: reads it, lets it meet its fault and its limit, answers, and keeps the log.

import { optionalNumber, parseObject } from './body-fields.ts';
import { deliverStream, deliverWhole } from './deliver.ts';
import { type Chance, drawMs } from './duration.ts';
import { ClientGone, type Exchange } from './exchange.ts';
import { type Fault, OUTPUT_TOKENS } from './fault.ts';
import type { FaultBook } from './fault-book.ts';
import { type Problem, ProblemError } from './problem.ts';
import type { PromptCache } from './prompt-cache.ts';
import type { RateLimits } from './rate-limits.ts';
import type { RequestLog } from './request-log.ts';
import type { Settings } from './settings.ts';
import type { Composed, Endpoint, ErrorStyle, Work } from './wire/endpoint.ts';

export type Provider = {
  settings: Settings;
  readonly chance: Chance;
  readonly faults: FaultBook;
  readonly limits: RateLimits;
  readonly cache: PromptCache;
  readonly log: RequestLog;
};

const SAYS: Record<number, string> = {
  400: 'the request is not valid',
  401: 'the API key is not valid',
  403: 'the API key may not use this model',
  404: 'the model does not exist',
  429: 'too many requests, try again later',
  529: 'overloaded',
};

/** Answers the exchange; `model` is given where the path names it. Throws only what nobody expected. */
export async function serveCall(
  exchange: Exchange,
  call: { readonly endpoint: Endpoint; readonly model: string | undefined },
  provider: Provider,
): Promise<void> {
  const { endpoint } = call;
  let rateHeaders = {};
  try {
    const work = endpoint.read(parseObject(await exchange.readBody(), 'the body'), call.model);
    exchange.entry.update({ model: work.model });
    rateHeaders = endpoint.style.rateHeaders(provider.limits.state(work.model));
    await perform(exchange, work, { style: endpoint.style, provider });
  } catch (error) {
    if (error instanceof ClientGone) return;
    if (!(error instanceof ProblemError)) throw error;
    sendProblem(exchange, endpoint.style, { problem: error.problem, headers: rateHeaders });
  }
}

/** An error in the dialect's own shape. Such a request cost nothing. */
export function sendProblem(
  exchange: Exchange,
  style: ErrorStyle,
  about: { readonly problem: Problem; readonly headers?: Record<string, string> },
): void {
  const body = JSON.stringify(style.body(about.problem, exchange.id));
  exchange.entry.update({ usage: NO_USAGE, outputTokensSent: 0 });
  exchange.entry.end('error');
  exchange.begin(about.problem.status, {
    ...about.headers,
    ...style.headers(about.problem),
    [style.idHeader]: exchange.id,
    'content-type': 'application/json',
    'content-length': String(Buffer.byteLength(body)),
  });
  exchange.end(body);
}

const NO_USAGE = {
  inputTokens: 0,
  cachedInputTokens: 0,
  cacheWriteTokens: 0,
  outputTokens: 0,
  reasoningTokens: 0,
};

async function perform(
  exchange: Exchange,
  work: Work,
  context: { readonly style: ErrorStyle; readonly provider: Provider },
): Promise<void> {
  const { provider, style } = context;
  const fault = faultOf(exchange, work, provider);
  const settings = { ...provider.settings, ...given(fault) };
  if (work.model.startsWith('missing-')) {
    throw new ProblemError({
      status: 404,
      message: `the model '${work.model}' does not exist`,
      param: 'model',
    });
  }
  if (fault.status !== undefined && fault.errorInStreamAfterChunks === undefined) {
    await exchange.pause(drawMs(settings.latency, provider.chance));
    throw new ProblemError(problemOf(fault, fault.status));
  }
  const composed = work.compose({
    outputTokens: fault.outputTokens ?? outputTokensOf(exchange),
    contentFilter: fault.contentFilter,
    tokensPerChunk: settings.tokensPerChunk,
    omitUsage: fault.omitUsage ?? false,
  });
  const admission = provider.limits.admit(work.model, composed.inputTokens + composed.outputTokens);
  const headers = { ...style.rateHeaders(admission.state), [style.idHeader]: exchange.id };
  if (admission.kind === 'refused') {
    return sendProblem(exchange, style, { problem: limitProblem(work.model, admission), headers });
  }
  const delivery = composed.deliver(useCache(composed, provider), envelopeOf(exchange));
  exchange.entry.update({ usage: { ...delivery.usage, outputTokens: 0, reasoningTokens: 0 } });
  if (fault.hang === 'before_headers') {
    exchange.entry.end('hung');
    return exchange.untilGone();
  }
  await exchange.pause(drawMs(settings.latency, provider.chance));
  const plan = {
    delivery,
    tokensAfter: composed.tokensAfter,
    fault,
    pace: settings,
    chance: provider.chance,
    headers,
  };
  await (work.stream ? deliverStream(exchange, plan) : deliverWhole(exchange, plan));
}

function faultOf(exchange: Exchange, work: Work, provider: Provider): Fault {
  const header = exchange.request.headers['x-sim-fault'];
  return provider.faults.select({
    model: work.model,
    path: exchange.path,
    prompt: work.prompt,
    header: Array.isArray(header) ? header[0] : header,
  });
}

/** The parts of a fault that stand in for settings. */
function given(fault: Fault): Partial<Settings> {
  const { latency, firstTokenMs, chunkDelayMs, tokensPerChunk } = fault;
  return {
    ...(latency === undefined ? {} : { latency }),
    ...(firstTokenMs === undefined ? {} : { firstTokenMs }),
    ...(chunkDelayMs === undefined ? {} : { chunkDelayMs }),
    ...(tokensPerChunk === undefined ? {} : { tokensPerChunk }),
  };
}

/** The header `x-sim-output-tokens: N`. */
function outputTokensOf(exchange: Exchange): number | undefined {
  const header = exchange.request.headers['x-sim-output-tokens'];
  if (header === undefined) return undefined;
  const text = Array.isArray(header) ? header[0] : header;
  const value = /^\d+$/.test(text ?? '') ? Number(text) : text;
  return optionalNumber({ 'x-sim-output-tokens': value }, 'x-sim-output-tokens', OUTPUT_TOKENS);
}

function problemOf(fault: Fault, status: number): Problem {
  const message = fault.code === 'insufficient_quota' ? 'you exceeded your current quota' : SAYS[status];
  return {
    status,
    message: fault.message ?? message ?? 'the provider failed',
    code: fault.code,
    retryAfterMs: fault.retryAfterMs,
  };
}

function limitProblem(model: string, refused: { by: 'requests' | 'tokens'; retryAfterMs: number }): Problem {
  const unit = refused.by === 'requests' ? 'requests' : 'tokens';
  return {
    status: 429,
    message: `rate limit reached for ${model} on ${unit} per minute, try again in ${refused.retryAfterMs} ms`,
    retryAfterMs: refused.retryAfterMs,
    limit: refused.by,
  };
}

function useCache(composed: Composed, provider: Provider) {
  const { cacheable } = composed;
  return cacheable === undefined
    ? { readTokens: 0, writtenTokens: 0 }
    : provider.cache.use(cacheable.space, cacheable.text);
}

/** Ids of answers are made from the log's number: clients may send the same request id twice. */
function envelopeOf(exchange: Exchange) {
  const { n, at } = exchange.entry.current;
  return { id: `sim${n.toString(16).padStart(8, '0')}`, createdAt: Math.floor(Date.parse(at) / 1000) };
}
