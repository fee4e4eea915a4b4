// Every key of default.yaml with a value that is not its default, as a file gives it and as it is resolved. A key without a row
// fails `settings.test.ts`.

/** Key, environment name, a value in a file, the same as environment text (when it differs), resolved key and value. */
export type Row = {
  key: string;
  env: string;
  file: unknown;
  text?: string;
  resolved?: string;
  value: unknown;
};

const BREAKER_ROWS = Object.entries({
  redis: 'REDIS',
  postgres: 'DB',
  temporal: 'GRPC',
  llm: 'LLM',
  tool: 'TOOL',
}).flatMap(([name, part]): Row[] => {
  const [key, env] = [`breakers.${name}`, `CB_${part}`];
  return [
    { key: `${key}.enabled`, env: `${env}_ENABLED`, file: false, value: false },
    { key: `${key}.maxRequests`, env: `${env}_MAX_REQUESTS`, file: 7, value: 7 },
    {
      key: `${key}.interval`,
      env: `${env}_INTERVAL`,
      file: '11s',
      resolved: `${key}.intervalMs`,
      value: 11_000,
    },
    {
      key: `${key}.timeout`,
      env: `${env}_TIMEOUT`,
      file: '13s',
      resolved: `${key}.timeoutMs`,
      value: 13_000,
    },
    { key: `${key}.failureThreshold`, env: `${env}_FAILURE_THRESHOLD`, file: 17, value: 17 },
    { key: `${key}.successThreshold`, env: `${env}_SUCCESS_THRESHOLD`, file: 19, value: 19 },
  ];
});

const SLOT_ROWS = Object.entries({ activities: 'WORKER_ACT', workflows: 'WORKER_WF' }).flatMap(
  ([name, env]) =>
    ['critical', 'high', 'normal', 'low'].map(
      (priority, index): Row => ({
        key: `worker.${name}.${priority}`,
        env: `${env}_${priority.toUpperCase()}`,
        file: 21 + index,
        value: 21 + index,
      }),
    ),
);

/** Key, environment name, and a duration, by which the resolved key ends in `Ms`. */
const DURATION_ROWS = [
  ['rate.horizon.critical', 'WEIR_RATE_HORIZON_CRITICAL', '3s', 3_000],
  ['rate.horizon.high', 'WEIR_RATE_HORIZON_HIGH', '4s', 4_000],
  ['rate.horizon.normal', 'WEIR_RATE_HORIZON_NORMAL', '5s', 5_000],
  ['rate.horizon.low', 'WEIR_RATE_HORIZON_LOW', '6s', 6_000],
  ['rate.rpmBurst', 'WEIR_RATE_RPM_BURST', '7s', 7_000],
  ['rate.tpmBurst', 'WEIR_RATE_TPM_BURST', '8s', 8_000],
  ['task.drainCap', 'WEIR_TASK_DRAIN_CAP', '3s', 3_000],
  ['task.queueCountInterval', 'WEIR_TASK_QUEUE_COUNT_INTERVAL', '2s', 2_000],
  ['budget.returnAfter', 'WEIR_BUDGET_RETURN_AFTER', '2s', 2_000],
  ['budget.driftInterval', 'WEIR_BUDGET_DRIFT_INTERVAL', '5m', 300_000],
  ['routing.shortHint', 'WEIR_ROUTING_SHORT_HINT', '7s', 7_000],
  ['retention.texts', 'WEIR_RETENTION_TEXTS', '36h', 129_600_000],
  ['retention.events', 'WEIR_RETENTION_EVENTS', '1.5d', 129_600_000],
  ['retention.ledger', 'WEIR_RETENTION_LEDGER', '62d', 5_356_800_000],
  ['breakers.budget.interval', 'CB_BUDGET_INTERVAL', '11s', 11_000],
  ['breakers.budget.timeout', 'CB_BUDGET_TIMEOUT', '13s', 13_000],
] as const;

export const ROWS: readonly Row[] = [
  ...DURATION_ROWS.map(([key, env, file, value]) => ({ key, env, file, resolved: `${key}Ms`, value })),
  { key: 'breakers.budget.enabled', env: 'CB_BUDGET_ENABLED', file: false, value: false },
  { key: 'breakers.budget.failureThreshold', env: 'CB_BUDGET_FAILURE_THRESHOLD', file: 17, value: 17 },
  { key: 'budget.zone', env: 'WEIR_BUDGET_ZONE', file: 'Asia/Kathmandu', value: 'Asia/Kathmandu' },
  { key: 'budget.weekStart', env: 'WEIR_BUDGET_WEEK_START', file: 'sunday', value: 'sunday' },
  { key: 'budget.store', env: 'WEIR_BUDGET_STORE', file: 'postgres', value: 'postgres' },
  { key: 'budget.redisDown', env: 'WEIR_BUDGET_REDIS_DOWN', file: 'closed', value: 'closed' },
  { key: 'budget.backpressure.threshold', env: 'BACKPRESSURE_THRESHOLD', file: 0.95, value: 0.95 },
  {
    key: 'budget.backpressure.maxDelay',
    env: 'MAX_BACKPRESSURE_DELAY_MS',
    file: '7s',
    text: '7000',
    resolved: 'budget.backpressure.maxDelayMs',
    value: 7_000,
  },
  {
    key: 'budget.backpressure.table',
    env: 'WEIR_BUDGET_BACKPRESSURE_TABLE',
    file: '0.5:0ms,0.75:1.5s',
    value: [
      { at: 0.5, ms: 0 },
      { at: 0.75, ms: 1_500 },
    ],
  },
  { key: 'budget.unknownPrice', env: 'WEIR_BUDGET_UNKNOWN_PRICE', file: 'flag', value: 'flag' },
  { key: 'budget.ceilingInput', env: 'WEIR_BUDGET_CEILING_INPUT', file: '1.5', value: 1_500_000_000n },
  { key: 'budget.ceilingOutput', env: 'WEIR_BUDGET_CEILING_OUTPUT', file: 0.1, value: 100_000_000n },
  { key: 'billing.lostAttempts', env: 'WEIR_BILLING_LOST_ATTEMPTS', file: 'user', value: 'user' },
  { key: 'auth', env: 'WEIR_AUTH', file: 'off', value: 'off' },
  { key: 'log.level', env: 'WEIR_LOG_LEVEL', file: 'debug', value: 'debug' },
  { key: 'log.format', env: 'WEIR_LOG_FORMAT', file: 'json', value: 'json' },
  { key: 'metrics.host', env: 'METRICS_HOST', file: '0.0.0.0', value: '0.0.0.0' },
  { key: 'metrics.port', env: 'METRICS_PORT', file: 0, value: 0 },
  { key: 'gateway.host', env: 'WEIR_GATEWAY_HOST', file: '::1', value: '::1' },
  { key: 'gateway.port', env: 'WEIR_GATEWAY_PORT', file: 65_535, value: 65_535 },
  {
    key: 'gateway.shutdownGraceTime',
    env: 'WEIR_GATEWAY_SHUTDOWN_GRACE',
    file: '2s',
    resolved: 'gateway.shutdownGraceTimeMs',
    value: 2_000,
  },
  { key: 'gateway.adminKey', env: 'WEIR_ADMIN_KEY', file: 'k-123', value: 'k-123' },
  { key: 'temporal.queuePrefix', env: 'WEIR_QUEUE_PREFIX', file: 'other', value: 'other' },
  {
    key: 'temporal.workflowBundle',
    env: 'WEIR_WORKFLOW_BUNDLE',
    file: '/b/workflows.js',
    value: '/b/workflows.js',
  },
  {
    key: 'temporal.shutdownGraceTime',
    env: 'WEIR_SHUTDOWN_GRACE',
    file: '1.5m',
    resolved: 'temporal.shutdownGraceTimeMs',
    value: 90_000,
  },
  { key: 'redis.eventsUrl', env: 'REDIS_EVENTS_URL', file: 'redis://e:1', value: 'redis://e:1' },
  { key: 'redis.url', env: 'REDIS_URL', file: 'rediss://u:p@h:1/2', value: 'rediss://u:p@h:1/2' },
  { key: 'redis.keyPrefix', env: 'WEIR_REDIS_KEY_PREFIX', file: 'Pre_fix-1', value: 'Pre_fix-1' },
  {
    key: 'redis.commandTimeout',
    env: 'WEIR_REDIS_COMMAND_TIMEOUT',
    file: '300ms',
    resolved: 'redis.commandTimeoutMs',
    value: 300,
  },
  { key: 'redis.policyChecked', env: 'WEIR_REDIS_POLICY_CHECKED', file: true, value: true },
  { key: 'postgres.url', env: 'DATABASE_URL', file: 'postgresql://h/d', value: 'postgresql://h/d' },
  { key: 'postgres.schema', env: 'WEIR_POSTGRES_SCHEMA', file: 'weir_2', value: 'weir_2' },
  { key: 'postgres.poolSize', env: 'WEIR_POSTGRES_POOL_SIZE', file: 3, value: 3 },
  {
    key: 'postgres.statementTimeout',
    env: 'WEIR_POSTGRES_STATEMENT_TIMEOUT',
    file: '7s',
    resolved: 'postgres.statementTimeoutMs',
    value: 7_000,
  },
  { key: 'worker.priorityQueues', env: 'PRIORITY_QUEUES', file: 'off', value: false },
  ...SLOT_ROWS,
  { key: 'task.maxQueued', env: 'WEIR_TASK_MAX_QUEUED', file: 5, value: 5 },
  { key: 'task.maxTextBytes', env: 'WEIR_TASK_MAX_TEXT_BYTES', file: 1_024, value: 1_024 },
  {
    key: 'task.reconcileInterval',
    env: 'WEIR_TASK_RECONCILE_INTERVAL',
    file: '3s',
    resolved: 'task.reconcileIntervalMs',
    value: 3_000,
  },
  {
    key: 'call.firstToken',
    env: 'WEIR_CALL_FIRST_TOKEN',
    file: '2s',
    resolved: 'call.firstTokenMs',
    value: 2_000,
  },
  { key: 'call.chunkGap', env: 'WEIR_CALL_CHUNK_GAP', file: '3s', resolved: 'call.chunkGapMs', value: 3_000 },
  { key: 'call.attempt', env: 'WEIR_CALL_ATTEMPT', file: '4m', resolved: 'call.attemptMs', value: 240_000 },
  {
    key: 'call.maxDuration',
    env: 'WEIR_CALL_MAX_DURATION',
    file: '48h',
    resolved: 'call.maxDurationMs',
    value: 172_800_000,
  },
  {
    key: 'call.inlineWait',
    env: 'WEIR_CALL_INLINE_WAIT',
    file: '0ms',
    resolved: 'call.inlineWaitMs',
    value: 0,
  },
  {
    key: 'call.heartbeatTimeout',
    env: 'WEIR_CALL_HEARTBEAT_TIMEOUT',
    file: '2s',
    resolved: 'call.heartbeatTimeoutMs',
    value: 2_000,
  },
  { key: 'call.lease', env: 'WEIR_CALL_LEASE', file: '20s', resolved: 'call.leaseMs', value: 20_000 },
  {
    key: 'call.leaseRenewal',
    env: 'WEIR_CALL_LEASE_RENEWAL',
    file: '1s',
    resolved: 'call.leaseRenewalMs',
    value: 1_000,
  },
  { key: 'call.attemptsPerCandidate', env: 'WEIR_CALL_ATTEMPTS_PER_CANDIDATE', file: 1, value: 1 },
  { key: 'call.attemptsPerCall', env: 'WEIR_CALL_ATTEMPTS_PER_CALL', file: 9, value: 9 },
  { key: 'call.estimatePolicy', env: 'WEIR_CALL_ESTIMATE_POLICY', file: 'charge_max', value: 'charge_max' },
  {
    key: 'budget.heldWait',
    env: 'WEIR_BUDGET_HELD_WAIT',
    file: '1s',
    resolved: 'budget.heldWaitMs',
    value: 1_000,
  },
  {
    key: 'budget.reaperInterval',
    env: 'WEIR_BUDGET_REAPER_INTERVAL',
    file: '200ms',
    resolved: 'budget.reaperIntervalMs',
    value: 200,
  },
  { key: 'routing.promptCache', env: 'WEIR_ROUTING_PROMPT_CACHE', file: false, value: false },
  { key: 'rate.enabled', env: 'PROVIDER_RATE_CONTROL_ENABLED', file: false, value: false },
  { key: 'rate.reservedShare', env: 'WEIR_RATE_RESERVED_SHARE', file: 0.3, value: 0.3 },
  { key: 'rate.agedShare', env: 'WEIR_RATE_AGED_SHARE', file: 0.05, value: 0.05 },
  { key: 'event.ringCapacity', env: 'STREAMING_RING_CAPACITY', file: 64, value: 64 },
  {
    key: 'event.deltaInterval',
    env: 'WEIR_EVENT_DELTA_INTERVAL',
    file: '10ms',
    resolved: 'event.deltaIntervalMs',
    value: 10,
  },
  { key: 'event.deltaBytes', env: 'WEIR_EVENT_DELTA_BYTES', file: 100, value: 100 },
  {
    key: 'event.deltaFlush',
    env: 'WEIR_EVENT_DELTA_FLUSH',
    file: '1s',
    resolved: 'event.deltaFlushMs',
    value: 1_000,
  },
  {
    key: 'event.sweepAfter',
    env: 'WEIR_EVENT_SWEEP_AFTER',
    file: '1s',
    resolved: 'event.sweepAfterMs',
    value: 1_000,
  },
  { key: 'event.liveCapacity', env: 'WEIR_EVENT_LIVE_CAPACITY', file: 200, value: 200 },
  { key: 'event.logBatchSize', env: 'EVENTLOG_BATCH_SIZE', file: 100, value: 100 },
  {
    key: 'event.logBatchInterval',
    env: 'EVENTLOG_BATCH_INTERVAL_MS',
    file: '1s',
    resolved: 'event.logBatchIntervalMs',
    value: 1_000,
  },
  {
    key: 'event.heartbeat',
    env: 'WEIR_EVENT_HEARTBEAT',
    file: '1s',
    resolved: 'event.heartbeatMs',
    value: 1_000,
  },
  {
    key: 'event.coalesce',
    env: 'WEIR_EVENT_COALESCE',
    file: '20ms',
    resolved: 'event.coalesceMs',
    value: 20,
  },
  {
    key: 'event.readerBacklogEvents',
    env: 'WEIR_EVENT_READER_BACKLOG_EVENTS',
    file: 50,
    value: 50,
  },
  {
    key: 'event.readerBacklogBytes',
    env: 'WEIR_EVENT_READER_BACKLOG_BYTES',
    file: 65_536,
    value: 65_536,
  },
  ...BREAKER_ROWS,
];
