// What a task runs with while dependencies are down. Decides nothing of its own: the level and the rules are given.

import type { TaskPlan } from '../task/decision.ts';
import { degradeInput, type Health } from '../task/degradation.ts';
import type { EventDraft } from '../task/event.ts';
import type { TaskInput } from '../task/input.ts';

/**
 * The plan of the input as it is to be degraded, with what was degraded in its settings. A task that a smaller tier cannot do, since it
 * asks for more output than that has, runs as it asked.
 */
export function planDegraded(
  plan: (input: TaskInput) => TaskPlan,
  input: TaskInput,
  health: Health,
): TaskPlan {
  const { input: degraded, degradation } = degradeInput(input, health);
  if (degradation === undefined) return plan(input);
  const smaller = plan(degraded);
  if (smaller.kind === 'planned') {
    // Metrics compare what was asked for with what answered.
    const asked = degradation.tier === undefined ? {} : { tier: degradation.tier.asked };
    return { ...smaller, settings: { ...smaller.settings, ...asked, degradation } };
  }
  const whole = plan(input);
  return whole.kind === 'invalid'
    ? whole
    : { ...whole, settings: { ...whole.settings, degradation: health } };
}

/** What a task's readers are told of it, as a part of its beginning. */
export function degradedEvents(runId: string, plan: TaskPlan): readonly EventDraft[] {
  const degradation = plan.kind === 'planned' ? plan.settings.degradation : undefined;
  if (degradation === undefined) return [];
  const message = `${degradation.down.join(', ')} ${degradation.down.length === 1 ? 'is' : 'are'} down`;
  return [{ id: `${runId}:degraded`, type: 'degraded', message, data: { ...degradation } }];
}
