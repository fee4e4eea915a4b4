// What providers were heard to limit. It stands in the buckets that rate control reads, so that all workers see one truth at once, and in
// Postgres, so that it outlives Redis. Nothing learnt ever passes what is configured (learnt-rule.ts).

import { RATE_DIMENSIONS, type RateDimension, type RateReading } from '../task/rate-reading.ts';
import { rateKeys } from './keys.ts';
import type { LearntLimit } from './learnt-rule.ts';
import { readLearnt, writeLearnt } from './learnt-rule.ts';
import type { Sql } from './postgres.ts';
import { DEFAULT_RATE_CLASSES, type RateClasses } from './rate-rules.ts';
import { isRedisOutage, loadScript, type Redis } from './redis.ts';

const scripts = {
  learn: loadScript('rate-limits', 'rate-learning', 'rate-learn'),
  restore: loadScript('rate-restore'),
} as const;

/** Longest that one answer blocks a bucket for everybody. */
const LONGEST_BLOCK_MS = 3_600_000;
/** Answers that say what the last one said are told to Redis this often: every call would be a round trip for nothing. */
const REPEAT_AFTER_MS = 1_000;
/** Which server was told everything that was learnt. */
const RESTORED = 'learnt';

/** Per minute; an absent dimension has no limit. */
export type PerMinute = Readonly<Partial<Record<RateDimension, number | undefined>>>;

export type LearntRatesOptions = {
  /** What is configured for a model (`provider/model`) and for its provider. */
  readonly configuredOf: (model: string) => { readonly model: PerMinute; readonly provider: PerMinute };
  /** Sizes of the buckets; left out: the usual ones. */
  readonly bursts?: Pick<RateClasses, 'rpmBurstMs' | 'tpmBurstMs'> | undefined;
  /** In milliseconds, and only forward; left out: the process's own clock. */
  readonly clock?: () => number;
  /** A refusal came while Redis is away: this process at least asks no sooner. */
  readonly onUnheard?: (provider: string, ms: number) => Promise<void>;
};

/** What one refusal says. Times are milliseconds. */
export type Refusal = {
  readonly readings: readonly RateReading[];
  readonly hintMs: number | undefined;
  /** Since the request was sent. */
  readonly ageMs: number;
};

export type LearntRates = ReturnType<typeof createLearntRates>;

/** A bucket of a provider; the empty model is the whole provider. */
type Bucket = { readonly provider: string; readonly model: string };
type Row = Bucket & { readonly dimension: RateDimension | 'blocked'; readonly learnt: LearntLimit };

export function createLearntRates(redis: Redis, sql: Sql, options: LearntRatesOptions) {
  const unsaved = new Map<string, Row>();
  const clock = options.clock ?? (() => performance.now());
  const told = new Map<string, { readonly text: string; readonly atMs: number }>();

  const saveNow = async (): Promise<void> => {
    const rows = [...unsaved];
    if (rows.length === 0) return;
    await writeRows(
      sql,
      rows.map(([, row]) => row),
    );
    // What changed meanwhile is another row under the same name.
    for (const [name, row] of rows) if (unsaved.get(name) === row) unsaved.delete(name);
  };
  // One after the other: of two that run at once the older could come last.
  let saving: Promise<void> = Promise.resolve();
  const save = (): Promise<void> => {
    saving = saving.catch(() => undefined /* told to whoever asked for that one */).then(saveNow);
    return saving;
  };
  const learn = async (model: string, kind: 'heard' | 'throttled', said: Refusal): Promise<void> => {
    const rows = await runLearn(redis, options, { model, kind, said });
    for (const row of rows) unsaved.set(`${row.provider} ${row.model} ${row.dimension}`, row);
    // Beside the call: it is in force already, and what cannot be saved now is saved by `keep`.
    void save().catch(() => undefined);
  };
  return {
    /**
     * Takes what an answer says of limits. Cheap where nothing is new. While Redis is away nothing is noted: the next answers say it again.
     */
    async heard(model: string, readings: readonly RateReading[]): Promise<void> {
      const text = JSON.stringify(readings.map(({ scope, dimension, limit }) => [scope, dimension, limit]));
      const last = told.get(model);
      const isRepeat = last?.text === text && clock() - last.atMs < REPEAT_AFTER_MS;
      if (readings.length === 0 || (isRepeat && !readings.some(({ emptyMs }) => emptyMs !== undefined)))
        return;
      told.set(model, { text, atMs: clock() });
      try {
        await learn(model, 'heard', { readings, hintMs: undefined, ageMs: 0 });
      } catch (error) {
        told.delete(model);
        if (!isRedisOutage(error)) throw error;
      }
    },

    /**
     * A provider refused for its limits: nobody asks again before the hint is over, and less is asked from then on. Refusals of one burst
     * cut once.
     */
    async throttled(model: string, said: Refusal): Promise<void> {
      try {
        await learn(model, 'throttled', said);
      } catch (error) {
        if (!isRedisOutage(error)) throw error;
        await options.onUnheard?.(providerOf(model), said.hintMs ?? REPEAT_AFTER_MS);
      }
    },

    /** Saves what could not be saved, and tells a Redis that has lost it what was learnt before. To be run every few seconds. */
    async keep(providers: readonly string[]): Promise<void> {
      await save();
      // While it is away there is nobody to be told.
      if (redis.connectedForMs() === 0) return;
      const runId = await redis.runId();
      for (const provider of providers) await restore(redis, sql, provider, runId);
    },
  };
}

async function runLearn(
  redis: Redis,
  options: LearntRatesOptions,
  { model, kind, said }: { model: string; kind: 'heard' | 'throttled'; said: Refusal },
): Promise<readonly Row[]> {
  const provider = providerOf(model);
  const configured = options.configuredOf(model);
  const numbers = (row: PerMinute) => RATE_DIMENSIONS.map((dimension) => row[dimension] ?? 0);
  const { outer, inner, bookings } = rateKeys(redis.prefix, provider, model);
  const { rpmBurstMs, tpmBurstMs } = options.bursts ?? DEFAULT_RATE_CLASSES;
  const answer = (await redis.run(
    scripts.learn,
    [inner, outer, bookings],
    [
      ...[kind, Math.max(0, Math.round(said.ageMs)), Math.ceil(said.hintMs ?? 0), LONGEST_BLOCK_MS],
      ...[rpmBurstMs * 1_000, tpmBurstMs * 1_000],
      ...[...numbers(configured.model), ...numbers(configured.provider)],
      ...said.readings.flatMap(toArguments),
    ],
  )) as string[];
  return Array.from({ length: answer.length / ROW_FIELDS }, (_, index) => {
    const [bucket, dimension = '', limit, at] = answer.slice(index * ROW_FIELDS, (index + 1) * ROW_FIELDS);
    const learnt = readLearnt(limit, at);
    if (learnt === undefined || !isDimension(dimension))
      throw new Error(`the script of learnt limits answered ${JSON.stringify(answer)}`);
    return { provider, model: bucket === '1' ? model : '', dimension, learnt };
  });
}

const ROW_FIELDS = 4;

function toArguments({ scope, dimension, limit, remaining, emptyMs }: RateReading): readonly number[] {
  const number = RATE_DIMENSIONS.indexOf(dimension) + 1;
  return [scope === 'model' ? 1 : 2, number, limit ?? 0, remaining ?? -1, Math.ceil(emptyMs ?? 0)];
}

/** The newest state wins, whichever process comes last; of two in one millisecond the tighter. */
async function writeRows(sql: Sql, rows: readonly Row[]): Promise<void> {
  await sql.query(
    `insert into learnt_rates (provider, model, dimension, value, ceiling, at_ms)
     select * from unnest($1::text[], $2::text[], $3::text[], $4::float8[], $5::float8[], $6::bigint[])
     on conflict (provider, model, dimension) do update
     set value = excluded.value, ceiling = excluded.ceiling, at_ms = excluded.at_ms, changed_at = now()
     where learnt_rates.at_ms < excluded.at_ms
       or (learnt_rates.at_ms = excluded.at_ms and learnt_rates.value >= excluded.value)`,
    [
      rows.map((row) => row.provider),
      rows.map((row) => row.model),
      rows.map((row) => row.dimension),
      rows.map((row) => row.learnt.value),
      rows.map((row) => row.learnt.ceiling ?? null),
      rows.map((row) => Math.round(row.learnt.atMs)),
    ],
  );
}

/** Another run id is a server that was restarted, promoted or replaced; a mark that is gone is one that was emptied. */
async function restore(redis: Redis, sql: Sql, provider: string, runId: string): Promise<void> {
  const { outer } = rateKeys(redis.prefix, provider);
  if ((await redis.command((client) => client.hget(outer, RESTORED))) === runId) return;
  const rows = await readRows(sql, provider);
  for (const model of new Set(rows.map((row) => row.model))) {
    const keys = rateKeys(redis.prefix, provider, model);
    const args = rows
      .filter((row) => row.model === model)
      .flatMap(({ dimension, learnt }) => [dimension, writeLearnt(learnt), learnt.atMs]);
    await redis.run(scripts.restore, [model === '' ? keys.outer : keys.inner], args);
  }
  await redis.command((client) => client.hset(outer, RESTORED, runId));
}

async function readRows(sql: Sql, provider: string): Promise<readonly Row[]> {
  const { rows } = await sql.query<{
    model: string;
    dimension: Row['dimension'];
    value: number;
    ceiling: number | null;
    at_ms: bigint;
  }>('select model, dimension, value, ceiling, at_ms from learnt_rates where provider = $1', [provider]);
  return rows.map(({ model, dimension, value, ceiling, at_ms }) => ({
    provider,
    model,
    dimension,
    learnt: { value, ...(ceiling === null ? {} : { ceiling }), atMs: Number(at_ms) },
  }));
}

function isDimension(text: string): text is Row['dimension'] {
  return text === 'blocked' || RATE_DIMENSIONS.some((dimension) => dimension === text);
}

/** Of `provider/model`. */
export function providerOf(model: string): string {
  return model.slice(0, model.indexOf('/'));
}
