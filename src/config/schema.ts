// Every key of default.yaml: environment name, form and bounds. The defaults and what a key is for stand in the YAML file; a key
// that exists in only one of the two is a fault. Bounds keep out absurd values, not unusual ones.

import { isZone, WEEK_DAYS } from '../task/window.ts';
import { delayTable } from './delay-table.ts';
import {
  duration,
  flag,
  isUrl,
  milliseconds,
  oneOf,
  onOff,
  optional,
  price,
  secret,
  share,
  text,
  whole,
} from './setting.ts';

export const schema = {
  auth: oneOf('WEIR_AUTH', ['keys', 'off']),
  log: {
    level: oneOf('WEIR_LOG_LEVEL', ['error', 'warn', 'info', 'debug']),
    format: oneOf('WEIR_LOG_FORMAT', ['json', 'pretty', 'auto']),
  },
  metrics: { host: host('METRICS_HOST'), port: port('METRICS_PORT') },
  gateway: {
    host: host('WEIR_GATEWAY_HOST'),
    port: port('WEIR_GATEWAY_PORT'),
    adminKey: optional(
      secret('WEIR_ADMIN_KEY', 'a key of 1 to 1000 printable ASCII characters without spaces', (value) =>
        /^[\x21-\x7e]{1,1000}$/.test(value),
      ),
    ),
    shutdownGraceTime: duration('WEIR_GATEWAY_SHUTDOWN_GRACE', '0ms', '1h'),
  },
  temporal: {
    queuePrefix: name('WEIR_QUEUE_PREFIX'),
    workflowBundle: optional(
      text('WEIR_WORKFLOW_BUNDLE', 'the path of a file', (value) => /^[^\0]{1,4096}$/.test(value)),
    ),
    shutdownGraceTime: duration('WEIR_SHUTDOWN_GRACE', '0ms', '1h'),
  },
  redis: {
    url: secret('REDIS_URL', 'a redis:// or rediss:// URL', (value) => isUrl(value, ['redis:', 'rediss:'])),
    eventsUrl: optional(
      secret('REDIS_EVENTS_URL', 'a redis:// or rediss:// URL', (value) =>
        isUrl(value, ['redis:', 'rediss:']),
      ),
    ),
    keyPrefix: name('WEIR_REDIS_KEY_PREFIX'),
    commandTimeout: duration('WEIR_REDIS_COMMAND_TIMEOUT', '10ms', '1m'),
    policyChecked: flag('WEIR_REDIS_POLICY_CHECKED'),
  },
  postgres: {
    url: secret('DATABASE_URL', 'a postgres:// or postgresql:// URL', (value) =>
      isUrl(value, ['postgres:', 'postgresql:']),
    ),
    schema: text('WEIR_POSTGRES_SCHEMA', 'a name of 1 to 40 characters out of a-z 0-9 _', (value) =>
      /^[a-z0-9_]{1,40}$/.test(value),
    ),
    poolSize: whole('WEIR_POSTGRES_POOL_SIZE', 1, 1_000),
    statementTimeout: duration('WEIR_POSTGRES_STATEMENT_TIMEOUT', '10ms', '10m'),
  },
  worker: {
    priorityQueues: onOff('PRIORITY_QUEUES'),
    activities: slots('WORKER_ACT'),
    workflows: slots('WORKER_WF'),
  },
  task: {
    maxTextBytes: whole('WEIR_TASK_MAX_TEXT_BYTES', 1, 65_536),
    reconcileInterval: duration('WEIR_TASK_RECONCILE_INTERVAL', '10ms', '24h'),
    drainCap: duration('WEIR_TASK_DRAIN_CAP', '0ms', '10m'),
    maxQueued: optional(whole('WEIR_TASK_MAX_QUEUED', 1, 10_000_000)),
    queueCountInterval: duration('WEIR_TASK_QUEUE_COUNT_INTERVAL', '10ms', '30s'),
  },
  call: {
    // Node's fetch itself gives up after five minutes of silence.
    firstToken: duration('WEIR_CALL_FIRST_TOKEN', '10ms', '5m'),
    chunkGap: duration('WEIR_CALL_CHUNK_GAP', '10ms', '5m'),
    attempt: duration('WEIR_CALL_ATTEMPT', '10ms', '24h'),
    maxDuration: duration('WEIR_CALL_MAX_DURATION', '1s', '720h'),
    inlineWait: duration('WEIR_CALL_INLINE_WAIT', '0ms', '5s'),
    // Below two seconds a heartbeat every second is late as soon as a process is busy, and a live call is called again.
    heartbeatTimeout: duration('WEIR_CALL_HEARTBEAT_TIMEOUT', '2s', '10m'),
    lease: duration('WEIR_CALL_LEASE', '100ms', '10m'),
    leaseRenewal: duration('WEIR_CALL_LEASE_RENEWAL', '10ms', '10m'),
    attemptsPerCandidate: whole('WEIR_CALL_ATTEMPTS_PER_CANDIDATE', 1, 100),
    attemptsPerCall: whole('WEIR_CALL_ATTEMPTS_PER_CALL', 1, 1_000),
    estimatePolicy: oneOf('WEIR_CALL_ESTIMATE_POLICY', ['charge_estimate', 'charge_max', 'charge_input']),
  },
  routing: {
    shortHint: duration('WEIR_ROUTING_SHORT_HINT', '0ms', '1h'),
    promptCache: flag('WEIR_ROUTING_PROMPT_CACHE'),
  },
  budget: {
    heldWait: duration('WEIR_BUDGET_HELD_WAIT', '0ms', '1h'),
    reaperInterval: duration('WEIR_BUDGET_REAPER_INTERVAL', '10ms', '10m'),
    zone: text('WEIR_BUDGET_ZONE', 'an IANA time zone such as UTC or Europe/Berlin', isZone),
    weekStart: oneOf('WEIR_BUDGET_WEEK_START', WEEK_DAYS),
    store: oneOf('WEIR_BUDGET_STORE', ['redis', 'postgres']),
    redisDown: oneOf('WEIR_BUDGET_REDIS_DOWN', ['postgres', 'closed']),
    returnAfter: duration('WEIR_BUDGET_RETURN_AFTER', '0ms', '24h'),
    driftInterval: duration('WEIR_BUDGET_DRIFT_INTERVAL', '10ms', '24h'),
    backpressure: {
      threshold: share('BACKPRESSURE_THRESHOLD'),
      maxDelay: milliseconds('MAX_BACKPRESSURE_DELAY_MS', '0ms', '10m'),
      table: delayTable('WEIR_BUDGET_BACKPRESSURE_TABLE'),
    },
    unknownPrice: oneOf('WEIR_BUDGET_UNKNOWN_PRICE', ['refuse', 'ceiling', 'flag']),
    ceilingInput: price('WEIR_BUDGET_CEILING_INPUT'),
    ceilingOutput: price('WEIR_BUDGET_CEILING_OUTPUT'),
  },
  billing: { lostAttempts: oneOf('WEIR_BILLING_LOST_ATTEMPTS', ['platform', 'user']) },
  retention: {
    texts: duration('WEIR_RETENTION_TEXTS', '1h', '3650d'),
    events: duration('WEIR_RETENTION_EVENTS', '1h', '3650d'),
    // Rows of this month and the one before are still adjusted.
    ledger: duration('WEIR_RETENTION_LEDGER', '62d', '3650d'),
  },
  rate: {
    enabled: flag('PROVIDER_RATE_CONTROL_ENABLED'),
    horizon: horizons('WEIR_RATE_HORIZON'),
    rpmBurst: duration('WEIR_RATE_RPM_BURST', '1ms', '10m'),
    tpmBurst: duration('WEIR_RATE_TPM_BURST', '1ms', '10m'),
    reservedShare: share('WEIR_RATE_RESERVED_SHARE'),
    agedShare: share('WEIR_RATE_AGED_SHARE'),
  },
  event: {
    ringCapacity: whole('STREAMING_RING_CAPACITY', 1, 100_000),
    deltaInterval: duration('WEIR_EVENT_DELTA_INTERVAL', '0ms', '10s'),
    deltaBytes: whole('WEIR_EVENT_DELTA_BYTES', 1, 1_048_576),
    deltaFlush: duration('WEIR_EVENT_DELTA_FLUSH', '10ms', '1m'),
    sweepAfter: duration('WEIR_EVENT_SWEEP_AFTER', '10ms', '10m'),
    liveCapacity: whole('WEIR_EVENT_LIVE_CAPACITY', 100, 10_000_000),
    logBatchSize: whole('EVENTLOG_BATCH_SIZE', 1, 10_000),
    logBatchInterval: milliseconds('EVENTLOG_BATCH_INTERVAL_MS', '1ms', '1m'),
    heartbeat: duration('WEIR_EVENT_HEARTBEAT', '10ms', '10m'),
    coalesce: duration('WEIR_EVENT_COALESCE', '0ms', '10s'),
    readerBacklogEvents: whole('WEIR_EVENT_READER_BACKLOG_EVENTS', 1, 1_000_000),
    readerBacklogBytes: whole('WEIR_EVENT_READER_BACKLOG_BYTES', 1_024, 1_073_741_824),
  },
  breakers: {
    redis: breaker('REDIS'),
    postgres: breaker('DB'),
    temporal: breaker('GRPC'),
    llm: breaker('LLM'),
    tool: breaker('TOOL'),
    budget: spendBreaker('BUDGET'),
  },
} as const;

function port(env: string) {
  return whole(env, 0, 65_535);
}

function host(env: string) {
  return text(env, 'a host name or an IP address', (value) => /^[A-Za-z0-9._:-]{1,255}$/.test(value));
}

/** A name that becomes a part of queue names and Redis keys. A brace would move Redis' hash tag. */
function name(env: string) {
  return text(env, 'a name of 1 to 40 characters out of A-Z a-z 0-9 _ -', (value) =>
    /^[A-Za-z0-9_-]{1,40}$/.test(value),
  );
}

function slots(env: string) {
  const slot = (priority: string) => whole(`${env}_${priority}`, 1, 10_000);
  return { critical: slot('CRITICAL'), high: slot('HIGH'), normal: slot('NORMAL'), low: slot('LOW') };
}

function horizons(env: string) {
  const horizon = (priority: string) => duration(`${env}_${priority}`, '0ms', '1h');
  return {
    ...{ critical: horizon('CRITICAL'), high: horizon('HIGH') },
    ...{ normal: horizon('NORMAL'), low: horizon('LOW') },
  };
}

function breaker(dependency: string) {
  const env = `CB_${dependency}`;
  return {
    ...spendBreaker(dependency),
    maxRequests: whole(`${env}_MAX_REQUESTS`, 1, 1_000),
    successThreshold: whole(`${env}_SUCCESS_THRESHOLD`, 1, 1_000),
  };
}

/** One on spend has no probation: the first call after its time is over asks the limits themselves. */
function spendBreaker(name: string) {
  const env = `CB_${name}`;
  return {
    enabled: flag(`${env}_ENABLED`),
    interval: duration(`${env}_INTERVAL`, '10ms', '24h'),
    timeout: duration(`${env}_TIMEOUT`, '10ms', '24h'),
    failureThreshold: whole(`${env}_FAILURE_THRESHOLD`, 1, 100_000),
  };
}
