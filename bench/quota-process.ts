// One of the processes that call a provider at half as much again as its quota (quota.ts): calls arrive evenly, wait as rate control tells
// them to, and come again when the provider refuses. No budgets and no Temporal: what is measured is rate control alone.

import { setTimeout as sleep } from 'node:timers/promises';
import { listenToRates } from '../src/calls/learn.ts';
import { LlmError } from '../src/llm/error.ts';
import { createLanguageModels } from '../src/llm/models.ts';
import type { Protocol } from '../src/llm/protocol.ts';
import { createLogger } from '../src/log.ts';
import { createLearntRates } from '../src/stores/learnt-rates.ts';
import { NOT_SENT, type RateRequest } from '../src/stores/rate-rules.ts';
import { createRates } from '../src/stores/rates.ts';
import { joinBenchStores } from './harness.ts';

export type Order = { readonly kind: 'start'; readonly callsPerMinute: number } | { readonly kind: 'stop' };

const MODEL = 'simulated/quota';
const MESSAGES = [{ role: 'user', content: 'Say yes.' }] as const;

const [postgres = '', redis = '', name = '', providerUrl = '', protocol = '', rpm = ''] =
  process.argv.slice(2);
const PROTOCOLS: Readonly<Record<string, { protocol: Protocol; path: string }>> = {
  openai: { protocol: 'openai', path: '/v1' },
  anthropic: { protocol: 'anthropic', path: '/v1' },
  google: { protocol: 'google', path: '/v1beta' },
};
const bench = await joinBenchStores({ postgres, redis }, name);
const log = createLogger({ level: 'warn', format: 'json', service: 'bench' });
const limit = { rpm: Number(rpm) };
const rates = createRates(bench.redis, { leaseMs: 10_000, rules: { provider: () => limit } });
const learntRates = createLearntRates(bench.redis, bench.postgres, {
  configuredOf: () => ({ model: {}, provider: limit }),
});
const spoken = PROTOCOLS[protocol];
if (spoken === undefined) throw new Error(`--protocol is one of ${Object.keys(PROTOCOLS).join(', ')}`);
const models = createLanguageModels({
  providers: {
    simulated: { protocol: spoken.protocol, baseUrl: `${providerUrl}${spoken.path}`, available: true },
  },
});
const stopping = new AbortController();
let calls = 0;

process.on('message', (order: Order) => {
  if (order.kind === 'stop') stopping.abort();
  else void arrive(order.callsPerMinute);
});
process.on('disconnect', () => process.exit(0));
process.send?.('ready');

async function arrive(callsPerMinute: number): Promise<void> {
  const startedAt = performance.now();
  while (!stopping.signal.aborted) {
    calls += 1;
    void call(`${process.pid}-${calls}`).catch((error: unknown) => {
      if (!stopping.signal.aborted) throw error;
    });
    const nextAt = startedAt + (calls * 60_000) / callsPerMinute;
    await sleep(Math.max(0, nextAt - performance.now()), undefined, { signal: stopping.signal }).catch(
      () => undefined /* stopped while waiting */,
    );
  }
}

/** Visits as a workflow makes them, until the call is answered. */
async function call(callKey: string): Promise<void> {
  const queuedAtMs = Date.now();
  let isBooked = false;
  for (let visit = 1; !stopping.signal.aborted; visit += 1) {
    const request: RateRequest = {
      ...{ provider: 'simulated', model: MODEL, tenantId: 'bench', attemptKey: `${callKey}#0.${visit}.1.0` },
      ...{
        callKey,
        candidate: 0,
        priority: 'normal',
        tokens: { input: 10, output: 20 },
        queuedAtMs,
        isBooked,
      },
    };
    const outcome = await rates.admit(request);
    const waitMs = outcome.kind === 'wait' ? outcome.ms : await send(request);
    if (waitMs === 0) return;
    isBooked = outcome.kind === 'wait' && outcome.isBooked;
    await sleep(waitMs, undefined, { signal: stopping.signal });
  }
}

/** Milliseconds after which to come again; 0 when it was answered. */
async function send(request: RateRequest): Promise<number> {
  const listener = listenToRates({ learntRates, log, meter: { throttled: () => undefined } }, request);
  try {
    await models.stream({
      ...{ model: MODEL, messages: MESSAGES, maxOutputTokens: 20, attemptKey: request.attemptKey },
      ...{ signal: stopping.signal, onText: () => undefined, onRates: listener.heard },
    });
    await listener.done();
    await rates.giveBack(request, { input: 10, output: 20, isSent: true });
    return 0;
  } catch (error) {
    await listener.failed(error);
    await rates.giveBack(request, NOT_SENT);
    if (!(error instanceof LlmError) || error.kind !== 'rate_limited') throw error;
    return error.retryAfterMs ?? 1_000;
  }
}
