// Every metric of a process, declared once: unit in the name, closed label sets, no ids. Written through small functions, so that who
// measures does not need to know names and labels.

import { Counter, Gauge, Histogram, Registry } from 'prom-client';
import { DEGRADATION_LEVELS, type DegradationLevel } from './task/degradation.ts';
import { PRIORITIES } from './task/input.ts';
import type { QueueCounts } from './task/queue-count.ts';
import type { RateBucketReport } from './task/rate-report.ts';

export type Metrics = ReturnType<typeof createMetrics>;

const CALL_SECONDS = [0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600];
const TASK_SECONDS = [0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 600, 1800, 3600];
const QUEUE_SECONDS = [0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800];
const RPC_SECONDS = [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 30, 70];
const TOKENS = [10, 100, 500, 1_000, 5_000, 10_000, 50_000, 100_000, 500_000];
const RATIOS = [0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 1, 1.1];
const USD = [0.0001, 0.001, 0.01, 0.05, 0.1, 0.5, 1, 5];

/** Why the gateway closes a stream: too much was left to take, nothing was taken for long, or the gateway stops. */
export type ReaderClosed = 'slow' | 'dead' | 'stopped';

const BREAKER_STATES = { closed: 0, half_open: 1, open: 2 } as const;

/** A registry of its own per process or test: nothing is global. */
export function createMetrics() {
  const registry = new Registry();
  const registers = [registry];
  const counter = <Label extends string>(name: string, help: string, labelNames: readonly Label[]) =>
    new Counter({ name: `weir_${name}`, help, labelNames, registers });
  const gauge = <Label extends string>(name: string, help: string, labelNames: readonly Label[]) =>
    new Gauge({ name: `weir_${name}`, help, labelNames, registers });
  const histogram = <Label extends string>(
    name: string,
    help: string,
    labelNames: readonly Label[],
    buckets: number[],
  ) => new Histogram({ name: `weir_${name}`, help, labelNames, buckets, registers });

  const all = {
    ...taskMetrics({ counter, gauge, histogram }),
    ...callMetrics({ counter, gauge, histogram }),
    ...routingMetrics({ counter }),
    ...budgetMetrics({ counter, gauge, histogram }),
    ...platformMetrics({ counter, gauge, histogram }),
    ...queueMetrics({ gauge, histogram }),
  };
  return {
    registry,
    tasksWaiting: all.tasksWaiting,
    holdsOpen: all.holdsOpen,
    oldestHoldSeconds: all.oldestHoldSeconds,
    /** What the last pass found counters to be off by, in USD and over all scopes; 0 is what it must be. */
    drift: (usd: number) => all.drift.set(usd),
    streamReaders: all.streamReaders,
    /** Streams that the gateway ended before their events did. */
    readersClosed: (reason: ReaderClosed, count = 1) => all.streamReadersClosed.inc({ reason }, count),
    task: taskMeter(all),
    call: {
      attemptEnded: (labels: { provider: string; model: string; outcome: string }) =>
        all.attempts.inc(labels),
      answered: ({ seconds, ...labels }: { provider: string; model: string; seconds: number }) =>
        all.callSeconds.observe(labels, seconds),
      firstToken: ({ seconds, ...labels }: { provider: string; model: string; seconds: number }) =>
        all.firstTokenSeconds.observe(labels, seconds),
      settled: ({ provider, usd }: { provider: string; usd: number }) =>
        all.settledUsd.inc({ provider }, usd),
      refused: (labels: { scope: string; reason: string }) => all.refused.inc(labels),
      overrun: (provider: string) => all.overrun.inc({ provider }),
      holdRatio: (provider: string, ratio: number) => all.holdRatio.observe({ provider }, ratio),
      pressed: (scope: string, ratio: number) => all.pressure.set({ scope }, ratio),
      slowedDown: (scope: string, seconds: number) => all.backpressureSeconds.observe({ scope }, seconds),
      delayed: ({ seconds, ...labels }: { provider: string; dimension: string; seconds: number }) =>
        all.rateDelaySeconds.observe(labels, seconds),
      throttled: (provider: string) => all.provider429.inc({ provider }),
      deltaDropped: (reason: 'redis' | 'full' | 'superseded', pieces: number) =>
        all.eventsDropped.inc({ reason }, pieces),
      priceUnknown: (provider: string) => all.priceUnknown.inc({ provider }),
      requested: (route: { tier: string; provider: string }) => all.tierRequested.inc(route),
      selected: (route: { tier: string; provider: string; reason: string }) => all.tierSelected.inc(route),
      fellBack: (route: { tier: string; provider: string; reason: string }) => all.fallbacks.inc(route),
    },
    rates: (buckets: readonly RateBucketReport[]) => showRates(all, buckets),
    queues: (counts: QueueCounts | undefined) => showQueues(all, counts),
    published: (type: string) => all.eventsPublished.inc({ type }),
    eventLog: eventLogMeter(all),
    ...configMeter(all),
    ...breakerMeter(all),
    rpc: (labels: { service: string; method: string; status: string }, seconds: number) =>
      all.grpcSeconds.observe(labels, seconds),
  };
}

type ConfigMetrics = Pick<ReturnType<typeof platformMetrics>, 'configReloads' | 'configFailed'> &
  Pick<ReturnType<typeof callMetrics>, 'bookingsLost'>;

function configMeter({ bookingsLost, configReloads, configFailed }: ConfigMetrics) {
  return {
    bookingsLost: (provider: string, count: number) => bookingsLost.inc({ provider }, count),
    config: {
      /** Files that are read; none has changed yet. */
      ready(files: readonly string[]) {
        for (const file of files) {
          configReloads.inc({ file }, 0);
          configFailed.set({ file }, 0);
        }
      },
      reloaded: (file: string) => configReloads.inc({ file }),
      /** Whether the file that was read last is at fault, so that the settings before it hold. */
      failed: (file: string, isFailed: boolean) => configFailed.set({ file }, isFailed ? 1 : 0),
    },
  };
}

type BreakerMetrics = Pick<
  ReturnType<typeof platformMetrics>,
  'breakerState' | 'breakerChanges' | 'degradation'
>;

function breakerMeter({ breakerState, breakerChanges, degradation }: BreakerMetrics) {
  return {
    breaker(name: string, state: keyof typeof BREAKER_STATES) {
      breakerState.set({ breaker: name }, BREAKER_STATES[state]);
      breakerChanges.inc({ breaker: name, state });
    },
    /** A breaker that exists and has not changed yet. */
    breakerReady: (name: string) => breakerState.set({ breaker: name }, BREAKER_STATES.closed),
    degraded: (level: DegradationLevel) => degradation.set(DEGRADATION_LEVELS.indexOf(level)),
  };
}

function eventLogMeter({
  eventLogLag,
  eventLogBacklog,
  eventLogRefused,
}: Pick<ReturnType<typeof platformMetrics>, 'eventLogLag' | 'eventLogBacklog' | 'eventLogRefused'>) {
  return {
    /** Of the whole system. */
    state(state: { backlog: number; lagSeconds: number }) {
      eventLogBacklog.set(state.backlog);
      eventLogLag.set(state.lagSeconds);
    },
    refused: () => eventLogRefused.inc(),
  };
}

function taskMeter(all: ReturnType<typeof taskMetrics> & ReturnType<typeof queueMetrics>) {
  return {
    started: (task: { strategy: string; priority: string }) => all.tasksStarted.inc(task),
    ended(task: { strategy: string; status: string; seconds: number; tokens: number; usd: number }) {
      const { strategy, status } = task;
      all.tasksEnded.inc({ strategy, status });
      all.taskSeconds.observe({ strategy, status }, task.seconds);
      all.taskTokens.observe({ strategy }, task.tokens);
      all.taskUsd.observe({ strategy }, task.usd);
    },
    slotTaken: ({ seconds, ...labels }: { queue: string; priority: string; seconds: number }) =>
      all.queueStartSeconds.observe(labels, seconds),
  };
}

/** What limits nothing any more is not shown. The empty model is the whole provider. */
function showRates(
  { rateLimit, rateRemaining }: Pick<ReturnType<typeof callMetrics>, 'rateLimit' | 'rateRemaining'>,
  buckets: readonly RateBucketReport[],
): void {
  rateLimit.reset();
  rateRemaining.reset();
  for (const { bucket, name, limits } of buckets)
    for (const { dimension, effective, remaining } of limits) {
      const model = bucket === 'model' ? name : '';
      const labels = { provider: name.split('/')[0] ?? name, model, dimension };
      if (effective !== undefined) rateLimit.set(labels, effective);
      if (remaining !== undefined) rateRemaining.set(labels, remaining);
    }
}

/** Counts of the whole system; undefined when nobody has counted, which is not zero. */
function showQueues(all: ReturnType<typeof queueMetrics>, counts: QueueCounts | undefined): void {
  all.queueBacklog.reset();
  all.quotaWaiting.reset();
  for (const { queue, priority, backlog, quotaWaiting } of counts?.queues ?? [])
    for (const other of PRIORITIES) {
      const labels = { queue, priority: other };
      if (other === priority || backlog[other] > 0) all.queueBacklog.set(labels, backlog[other]);
      if (other === priority || quotaWaiting[other] > 0) all.quotaWaiting.set(labels, quotaWaiting[other]);
    }
}

type Makers = {
  counter: <Label extends string>(name: string, help: string, labels: readonly Label[]) => Counter<Label>;
  gauge: <Label extends string>(name: string, help: string, labels: readonly Label[]) => Gauge<Label>;
  histogram: <Label extends string>(
    name: string,
    help: string,
    labels: readonly Label[],
    buckets: number[],
  ) => Histogram<Label>;
};

function taskMetrics({ counter, gauge, histogram }: Makers) {
  return {
    tasksStarted: counter('tasks_started_total', 'tasks that began', ['strategy', 'priority']),
    tasksEnded: counter('tasks_ended_total', 'tasks that ended', ['strategy', 'status']),
    tasksWaiting: gauge('tasks_waiting', 'tasks that wait for a limit, by its kind', ['reason']),
    taskSeconds: histogram(
      'task_duration_seconds',
      'from begin to end',
      ['strategy', 'status'],
      TASK_SECONDS,
    ),
    taskTokens: histogram('task_tokens', 'tokens of a task, in and out', ['strategy'], TOKENS),
    taskUsd: histogram('task_cost_usd', 'cost of a task', ['strategy'], USD),
  };
}

function callMetrics({ counter, histogram, gauge }: Makers) {
  return {
    attempts: counter('attempts_total', 'requests to providers by how they ended', [
      'provider',
      'model',
      'outcome',
    ]),
    callSeconds: histogram(
      'call_duration_seconds',
      'one attempt, from admission to settlement',
      ['provider', 'model'],
      CALL_SECONDS,
    ),
    firstTokenSeconds: histogram(
      'call_first_token_seconds',
      'until the first text',
      ['provider', 'model'],
      CALL_SECONDS,
    ),
    rateDelaySeconds: histogram(
      'rate_delay_seconds',
      'waits told by rate control, by what is waited for',
      ['provider', 'dimension'],
      CALL_SECONDS,
    ),
    rateLimit: gauge(
      'rate_limit',
      'limit in force a minute or at a time: configured, or learnt where that is less',
      ['provider', 'model', 'dimension'],
    ),
    rateRemaining: gauge('rate_remaining', 'what could be taken of it at once', [
      'provider',
      'model',
      'dimension',
    ]),
    bookingsLost: counter('rate_bookings_lost_total', 'booked places that no call came for in time', [
      'provider',
    ]),
    provider429: counter('provider_429_total', 'attempts that a provider throttled', ['provider']),
  };
}

function routingMetrics({ counter }: Pick<Makers, 'counter'>) {
  return {
    tierRequested: counter(
      'tier_requested_total',
      'calls by the tier and the provider that they set out for',
      ['tier', 'provider'],
    ),
    tierSelected: counter(
      'tier_selected_total',
      'answered calls by the tier and the provider that answered, and why it was not what they set out for',
      ['tier', 'provider', 'reason'],
    ),
    fallbacks: counter(
      'fallback_total',
      'moves to another model, by the tier that was asked for and the provider that could not answer',
      ['tier', 'provider', 'reason'],
    ),
  };
}

function budgetMetrics({ counter, gauge, histogram }: Makers) {
  return {
    settledUsd: counter('budget_settled_usd_total', 'charged and estimated spend', ['provider']),
    holdsOpen: gauge('budget_holds_open', 'attempts under way, over all processes', []),
    oldestHoldSeconds: gauge('budget_oldest_hold_seconds', 'age of the oldest attempt under way', []),
    refused: counter('budget_refused_total', 'calls refused by a budget', ['scope', 'reason']),
    pressure: gauge('budget_pressure', "projected use of the last call's tightest limit, as a share of it", [
      'scope',
    ]),
    backpressureSeconds: histogram(
      'budget_backpressure_seconds',
      'delays of calls near a limit',
      ['scope'],
      CALL_SECONDS,
    ),
    drift: gauge('budget_drift', 'USD by which counters differ from the ledger, as last checked', []),
    holdRatio: histogram(
      'budget_hold_ratio',
      'cost of an attempt as a share of its hold; far below 1: holds keep others out',
      ['provider'],
      RATIOS,
    ),
    overrun: counter('budget_overrun_total', 'attempts that cost more than their estimate', ['provider']),
    priceUnknown: counter('price_unknown_total', 'calls whose model had no price', ['provider']),
  };
}

function queueMetrics({ gauge, histogram }: Pick<Makers, 'gauge' | 'histogram'>) {
  return {
    queueBacklog: gauge('queue_backlog', 'tasks that wait for a slot, in the whole system', [
      'queue',
      'priority',
    ]),
    quotaWaiting: gauge(
      'quota_waiting',
      'tasks that sleep until a rate or provider limit has room, in the whole system',
      ['queue', 'priority'],
    ),
    queueStartSeconds: histogram(
      'queue_start_delay_seconds',
      'until a model call got a slot',
      ['queue', 'priority'],
      QUEUE_SECONDS,
    ),
  };
}

function platformMetrics({ counter, gauge, histogram }: Makers) {
  return {
    grpcSeconds: histogram(
      'grpc_request_duration_seconds',
      'requests of the Temporal client',
      ['service', 'method', 'status'],
      RPC_SECONDS,
    ),
    breakerState: gauge('breaker_state', '0 closed, 1 half open, 2 open', ['breaker']),
    degradation: gauge('degradation_level', '0 none, 1 minor, 2 moderate, 3 severe', []),
    breakerChanges: counter('breaker_changes_total', 'changes of a breaker', ['breaker', 'state']),
    eventsPublished: counter('events_published_total', 'events made visible', ['type']),
    eventLogLag: gauge(
      'event_log_lag_seconds',
      'age of the oldest batch whose numbers are not in Postgres',
      [],
    ),
    eventLogBacklog: gauge('event_log_backlog', 'batches whose numbers are not in Postgres', []),
    eventLogRefused: counter(
      'event_log_refused_total',
      'batches that Postgres refused for what is in them',
      [],
    ),
    eventsDropped: counter('events_dropped_total', 'pieces of streamed text that no reader saw', ['reason']),
    streamReaders: gauge('stream_readers', 'open event streams', []),
    streamReadersClosed: counter(
      'stream_readers_closed_total',
      'event streams that were closed before their end: too far behind, dead, or with the gateway',
      ['reason'],
    ),
    configReloads: counter('config_reload_total', 'changes of a file that were taken over', ['file']),
    configFailed: gauge(
      'config_reload_failed',
      '1 while a changed file is wrong and the settings before it hold',
      ['file'],
    ),
  };
}
