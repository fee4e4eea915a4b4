// All breakers of a process: made here, so that every change is logged and counted, and together they say how degraded the process is.

import type { Logger } from '../log.ts';
import type { FleetBreakers, FleetState, FleetView } from '../stores/fleet-breakers.ts';
import type { BreakerKind, BreakerSettings, BreakerState } from '../task/breaker.ts';
import { DEGRADATION_LEVELS, type DegradationLevel, type Health, healthOf } from '../task/degradation.ts';
import { type Breaker, type BreakerOptions, createBreaker } from './breaker.ts';
import { createFleetBreaker, type FleetBreaker } from './fleet-breaker.ts';

export type BreakerMeter = {
  /** A breaker that exists and has not changed yet. */
  breakerReady(name: string): void;
  breaker(name: string, state: BreakerState): void;
  degraded(level: DegradationLevel): void;
};

export type BreakersOptions = {
  /** Read anew for each call: settings may change while the process runs. */
  readonly settingsOf: (kind: BreakerKind) => BreakerSettings;
  readonly meter: BreakerMeter;
  readonly log: Logger;
};

export type ModelBreakersOptions = {
  readonly fleet: FleetBreakers;
  /** `provider/model`; asked again and again, since models come and go. */
  readonly models: () => readonly string[];
  readonly isFailure: (error: unknown) => boolean;
  /** Longest attempt, in milliseconds. */
  readonly hangMs: number;
  readonly probeLeaseMs: number;
};

/** One breaker as operators see it. `scope`: whose state and counts these are. */
export type BreakerReport = {
  readonly name: string;
  readonly kind: BreakerKind;
  readonly scope: 'process' | 'fleet';
  readonly state: BreakerState;
  readonly since: Date | undefined;
  /** Until somebody may try; 0 unless it is open. */
  readonly retryAfterMs: number;
  /** Within the interval. */
  readonly calls: number;
  readonly failures: number;
  readonly settings: BreakerSettings;
};

export type Breakers = ReturnType<typeof createBreakers>;

/** A change may have been missed without notice; every process looks this often. */
const LOOK_EVERY_MS = 5_000;

type Known = { readonly kind: BreakerKind; readonly breaker: Breaker };

export function createBreakers({ settingsOf, meter, log }: BreakersOptions) {
  const known = new Map<string, Known>();
  const shared = new Map<string, FleetBreaker>();
  let fleet: FleetBreakers | undefined;
  const health = () => healthOf([...known.values()].map(({ breaker }) => breaker));
  const onChange = (name: string, state: BreakerState) => {
    meter.breaker(name, state);
    const { level, down } = health();
    meter.degraded(level);
    log.warn('breaker changed', { breaker: name, state, degradation: level, down });
  };
  const add = <Made extends Breaker>(kind: BreakerKind, breaker: Made): Made => {
    known.set(breaker.name, { kind, breaker });
    meter.breakerReady(breaker.name);
    return breaker;
  };
  const local = (kind: BreakerKind, name: string, options: Omit<BreakerOptions, 'onChange'>) =>
    add(
      kind,
      createBreaker(name, () => settingsOf(kind), { ...options, onChange }),
    );
  meter.degraded(DEGRADATION_LEVELS[0]);
  return {
    /** A breaker of this process alone; `name` where there are several servers of a kind. */
    store: (
      kind: 'redis' | 'postgres' | 'temporal',
      options: Omit<BreakerOptions, 'onChange'>,
      name: string = kind,
    ): Breaker => local(kind, name, options),

    /** The same one for every call of a tool; `isFailure` is asked of the errors that the tool throws. */
    tool: (name: string, options: Omit<BreakerOptions, 'onChange'>): Breaker =>
      known.get(`tool:${name}`)?.breaker ?? local('tool', `tool:${name}`, options),

    /** Breakers of models, shared with every process on this Redis, until disposed. */
    models(options: ModelBreakersOptions) {
      fleet = options.fleet;
      const make = (name: string): FleetBreaker =>
        add(
          'llm',
          createFleetBreaker(name, () => settingsOf('llm'), { ...options, onChange, log }),
        );
      return followFleet({ ...options, settingsOf: () => settingsOf('llm'), shared, make, log });
    },

    health,

    /** What operators see: models as the fleet has them, or as this process does while Redis is away. */
    async report(): Promise<Health & { readonly breakers: readonly BreakerReport[] }> {
      const views = await viewsOf(fleet, [...shared.keys()], settingsOf('llm'));
      const breakers = [...known.values()]
        .map((one) => toReport(one, settingsOf(one.kind), views.get(one.breaker.name)))
        .toSorted((a, b) => (a.name < b.name ? -1 : 1));
      return { ...health(), breakers };
    },
  };
}

type Following = Pick<ModelBreakersOptions, 'fleet' | 'models'> & {
  readonly settingsOf: () => BreakerSettings;
  readonly shared: Map<string, FleetBreaker>;
  readonly make: (name: string) => FleetBreaker;
  readonly log: Logger;
};

function followFleet({ fleet, models, settingsOf, shared, make, log }: Following) {
  const of = (model: string): FleetBreaker => {
    const name = `llm:${model}`;
    const known = shared.get(name) ?? make(name);
    shared.set(name, known);
    return known;
  };
  const look = async (): Promise<void> => {
    for (const model of models()) of(model);
    const settings = settingsOf();
    if (!settings.enabled) return;
    try {
      const views = await fleet.read([...shared.keys()].map((name) => ({ name, settings })));
      for (const [name, view] of views) shared.get(name)?.adopt(view);
    } catch (error) {
      log.debug('the state of shared breakers could not be read, comes again', { error });
    }
  };
  for (const model of models()) of(model);
  const following = fleet.follow({
    changed: (name, state) => {
      if (settingsOf().enabled) shared.get(name)?.adopt(state);
    },
    missed: () => void look(),
  });
  const settled = async () => {
    await Promise.all([...shared.values()].map((breaker) => breaker.settled()));
  };
  const looking = setInterval(() => void look(), LOOK_EVERY_MS);
  looking.unref();
  return {
    of: (model: string): Breaker => of(model),
    /** What somebody says of a breaker of the fleet. */
    adopt: (name: string, state: FleetState) => shared.get(name)?.adopt(state),
    /** Resolves once everything that calls taught is written. */
    settled,
    async [Symbol.asyncDispose]() {
      clearInterval(looking);
      await settled();
      await following[Symbol.asyncDispose]();
    },
  };
}

async function viewsOf(
  fleet: FleetBreakers | undefined,
  names: readonly string[],
  settings: BreakerSettings,
): Promise<ReadonlyMap<string, FleetView>> {
  if (fleet === undefined) return new Map();
  try {
    return await fleet.read(names.map((name) => ({ name, settings })));
  } catch (error) {
    if (!fleet.isAway(error)) throw error;
    return new Map();
  }
}

function toReport(
  { kind, breaker }: Known,
  settings: BreakerSettings,
  view: FleetView | undefined,
): BreakerReport {
  const own = {
    name: breaker.name,
    kind,
    scope: 'process' as const,
    state: breaker.state,
    since: breaker.changedAt,
    retryAfterMs: breaker.retryAfterMs(),
    ...breaker.counts,
    settings,
  };
  if (view === undefined || !settings.enabled) return own;
  return {
    ...own,
    scope: 'fleet',
    state: view.state,
    since: view.era === 0 ? undefined : new Date(view.era / 1_000),
    retryAfterMs: view.leftMs,
    calls: view.calls,
    failures: view.failures,
  };
}
