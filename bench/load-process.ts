// One client process of a load (load.ts): keeps a fixed number of commands in flight on one connection for as long as it is told.

import { createLogger } from '../src/log.ts';
import { createCalendars } from '../src/stores/calendars.ts';
import { type AttemptRef, createGate, type Gate } from '../src/stores/gate.ts';
import { createRates } from '../src/stores/rates.ts';
import { createRedis, type Redis } from '../src/stores/redis.ts';
import { appendOf, publishOf } from './event-load.ts';
import { ESTIMATE, type Job, limitsOf, type Order, payerOf, type Report, type Shape } from './load.ts';

const [url = '', keyPrefix = '', index = ''] = process.argv.slice(2);
const redis = createRedis(
  { url, keyPrefix, commandTimeoutMs: 60_000, policyChecked: false },
  createLogger({ level: 'error', format: 'json', service: 'bench' }),
);
const gate = createGate(redis, {
  leaseMs: 60_000,
  markerTtlMs: 4_200_000,
  calendars: createCalendars({ zone: 'UTC', weekStart: 'monday' }),
});
const counter = { next: 0 };
const eventLoads = new Map<string, () => Promise<unknown>>();
const callersByTenant = new Map<string, ReturnType<typeof callersOf>>();

process.on('message', (order: Order) => void obey(order));
process.on('disconnect', () => process.exit(0));
await redis.ready(10_000);
process.send?.('ready');

async function obey({ job, ms, inFlight }: Order): Promise<void> {
  const once = operationOf(job);
  const from = performance.now();
  const until = from + ms;
  const cpuFrom = process.cpuUsage();
  let done = 0;
  const lane = async () => {
    for (; performance.now() < until; done += 1) await once();
  };
  await Promise.all(Array.from({ length: inFlight }, lane));
  const { user, system } = process.cpuUsage(cpuFrom);
  process.send?.({ done, ms: performance.now() - from, cpuMicros: user + system } satisfies Report);
}

function operationOf(job: Job): () => Promise<unknown> {
  switch (job.kind) {
    case 'incr':
      return incrementOf(redis);
    case 'hold':
      return holdOf(gate, job.shape);
    case 'holdAndRelease': {
      const hold = holdOf(gate, job.shape);
      return async () => {
        const attempt = await hold();
        await gate.release(attempt, 'settled', { nanoUsd: 900_000n, tokens: 1_200 });
      };
    }
    case 'permit':
      return permitOf(redis, job.buckets);
    case 'xadd':
    case 'publish': {
      const { kind, batch } = job;
      const key = `${kind}-${batch.deltas}-${index}`;
      const made = eventLoads.get(key) ?? (kind === 'xadd' ? appendOf : publishOf)(redis, key, batch);
      eventLoads.set(key, made);
      return made;
    }
    default:
      return job satisfies never;
  }
}

/** Of one provider, as all calls to it would ask; what never binds is counted like what does. */
function permitOf(of: Redis, buckets: 2 | 4): () => Promise<void> {
  const limit = { rpm: 1e11, tpm: 1e12 };
  const rules = { provider: () => limit, ...(buckets === 4 && { model: () => limit }) };
  const rates = createRates(of, { leaseMs: 60_000, rules });
  const who = { provider: `simulated-${buckets}`, model: 'simulated/small', tenantId: 'tenant' };
  return async () => {
    counter.next += 1;
    const callKey = `task-${counter.next}:${index}-0123456789abcdef:answer:1`;
    const answer = await rates.admit({
      ...{ ...who, callKey, candidate: 0, attemptKey: `${callKey}#0.1.1.0`, priority: 'normal' },
      tokens: { input: 500, output: 1_000 },
    });
    if (answer.kind !== 'admitted') throw new Error(`a permit was ${answer.kind}`);
  };
}

/** One counter for each process, as the simplest limiter would have it. */
function incrementOf({ command, prefix }: Redis): () => Promise<unknown> {
  const key = `${prefix}:{bench}:${index}`;
  return () => command((client) => client.incr(key));
}

/** Who pays, and under which limits, is made beforehand and once: a caller has read that from elsewhere. */
function holdOf({ hold }: Gate, shape: Shape): () => Promise<AttemptRef> {
  const callers = callersByTenant.get(shape.tenant) ?? callersOf(shape);
  callersByTenant.set(shape.tenant, callers);
  return async () => {
    counter.next += 1;
    const caller = callers[counter.next % callers.length];
    if (caller === undefined) throw new Error('a load without payers');
    const { payer, limits } = caller;
    const callKey = `${payer.taskId}:${index}-0123456789abcdef:answer:${counter.next}`;
    const attemptKey = `${callKey}#0.1.1.0`;
    const owner = `activity 0123456789abcdef ${payer.taskId} answer`;
    const request = { attemptKey, callKey, payer, owner, limits, estimate: ESTIMATE, generation: 1n };
    const answer = await hold(request);
    if (answer.kind !== 'ok') throw new Error(`a hold was ${answer.kind}`);
    return { attemptKey, payer };
  };
}

function callersOf(shape: Shape) {
  return Array.from({ length: shape.payers }, (_, n) => {
    const payer = payerOf(shape, n);
    return { payer, limits: limitsOf(shape, payer) };
  });
}
