// `rateDelay`: how long a task's first call would wait for its slot, asked by `begin`, so that a backed-up task waits in a timer and
// not in a worker's slot. A long wait is booked; what cannot be asked is no delay, since the call itself asks again.

import type { CallDependencies } from '../calls/call.ts';
import { rateTokens, toLimitName } from '../calls/permit.ts';
import type { Logger } from '../log.ts';
import type { Events } from '../stores/events.ts';
import type { Rates } from '../stores/rates.ts';
import type { Tasks } from '../stores/tasks.ts';
import type { LeftBooking, RateDelay, TaskSettings } from '../task/decision.ts';
import type { TaskInput } from '../task/input.ts';
import { toCallKey } from '../task/keys.ts';

export type RateActivityDependencies = {
  readonly rates: Pick<Rates, 'delay' | 'unbook'>;
  readonly tokens: Pick<CallDependencies['tokens'], 'upperBound'>;
  readonly tasks: Pick<Tasks, 'note'>;
  readonly events: Pick<Events, 'append'>;
  readonly rateMeter?: Pick<CallDependencies['meter'], 'delayed'>;
  readonly log: Logger;
};

type FirstCall = {
  readonly taskId: string;
  readonly runId: string;
  readonly stepId: string;
  readonly input: TaskInput;
  readonly settings: TaskSettings;
  /** Since when the task waits, by Temporal's clock; in milliseconds since 1970. */
  readonly queuedAtMs: number | undefined;
};

/** Undefined: the call may be made at once. */
export async function rateDelay(
  dependencies: RateActivityDependencies,
  call: FirstCall,
): Promise<RateDelay | undefined> {
  const { input, settings, taskId, runId, stepId, queuedAtMs } = call;
  const model = settings.candidates[0] ?? settings.model;
  const provider = model.slice(0, model.indexOf('/'));
  const callKey = toCallKey({ taskId, runId, stepId, n: 1 });
  try {
    const wait = await dependencies.rates.delay({
      ...{ provider, model, tenantId: input.tenantId },
      ...{ callKey, candidate: 0 },
      ...{ priority: input.priority, queuedAtMs },
      tokens: rateTokens(dependencies, input, {
        inputTokens: Number.POSITIVE_INFINITY,
        maxOutputTokens: settings.maxOutputTokens,
      }),
    });
    if (wait === undefined) return undefined;
    // The provider itself is in the way: which other model may answer meanwhile is for the call to see.
    if (wait.dimension === 'cooldown' && settings.candidates.length > 1) {
      if (wait.isBooked) await giveUpPlaces(dependencies, [{ callKey, model, candidate: 0 }]);
      return undefined;
    }
    const delay = { ms: wait.ms, limit: toLimitName({ provider, model }, wait), isBooked: wait.isBooked };
    dependencies.rateMeter?.delayed({ provider, dimension: wait.dimension, seconds: wait.ms / 1_000 });
    await show(dependencies, call, delay);
    return delay;
  } catch (error) {
    dependencies.log.warn('a task begins without asking for its slot', { taskId, error });
    return undefined;
  }
}

/** Places of calls that ended without coming for them. Best effort: a place that stays booked is lost when its time is over. */
export async function giveUpPlaces(
  { rates, log }: Pick<RateActivityDependencies, 'rates' | 'log'>,
  places: readonly LeftBooking[],
): Promise<void> {
  for (const place of places)
    await rates
      .unbook({ ...place, provider: place.model.slice(0, place.model.indexOf('/')) })
      .catch((error: unknown) => log.warn('a booked place was not given back', { ...place, error }));
}

async function show(
  { tasks, events }: RateActivityDependencies,
  { taskId, runId, stepId, input }: FirstCall,
  { ms, limit }: RateDelay,
): Promise<void> {
  const waiting = { reason: limit, until: new Date(Date.now() + ms).toISOString(), kind: 'rate' };
  await tasks.note(taskId, runId, { status: 'waiting', phase: 'waiting', waiting });
  const event = { id: `${runId}:delay`, type: 'rate_wait', stepId, message: limit } as const;
  await events.append({ taskId, runId, tenantId: input.tenantId }, [
    { ...event, data: { ms, reason: 'rate' } },
  ]);
}
