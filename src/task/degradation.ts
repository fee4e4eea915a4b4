// What a task makes do with while dependencies are down: a level from their number, a smaller tier, a plainer strategy, and how much of
// an answer is enough. Pure rules; whoever applies them says so in the result.

import type { BreakerState } from './breaker.ts';
import { type Strategy, type TaskInput, TIERS, type Tier } from './input.ts';
import type { EndedStatus } from './status.ts';

export const DEGRADATION_LEVELS = ['none', 'minor', 'moderate', 'severe'] as const;
export type DegradationLevel = (typeof DEGRADATION_LEVELS)[number];

/** `down` names the dependencies that do not serve: a store, `temporal`, `llm:<provider>`, `tool:<name>`. */
export type Health = { readonly level: DegradationLevel; readonly down: readonly string[] };

export const HEALTHY: Health = { level: 'none', down: [] };

/** What a task was given, where that is not what it asked for. */
export type Degradation = Health & {
  readonly tier?: { readonly asked: Tier; readonly given: Tier };
  readonly strategy?: { readonly asked: Strategy; readonly given: Strategy };
};

/** None down: none; one: minor; two: moderate; more: severe. */
export function degradationLevel(down: number): DegradationLevel {
  return DEGRADATION_LEVELS[Math.min(down, DEGRADATION_LEVELS.length - 1)] ?? 'severe';
}

/**
 * A dependency is down while its breaker is open; half open it may be tried, and nobody may want to. A provider counts once, however many
 * of its models are away.
 */
export function healthOf(
  breakers: readonly { readonly name: string; readonly state: BreakerState }[],
): Health {
  const names = breakers.filter(({ state }) => state === 'open').map(({ name }) => dependencyOf(name));
  const down = [...new Set(names)].toSorted();
  return { level: degradationLevel(down.length), down };
}

function dependencyOf(breaker: string): string {
  return /^llm:[^/]+/.exec(breaker)?.[0] ?? breaker;
}

export type DegradedInput = { readonly input: TaskInput; readonly degradation?: Degradation };

/**
 * From moderate on a task runs one tier lower and `dag` as `simple`. A task that names its model keeps it. Without anything down the input
 * is as it was and there is no degradation.
 */
export function degradeInput(input: TaskInput, health: Health): DegradedInput {
  if (health.level === 'none') return { input };
  if (health.level === 'minor') return { input, degradation: health };
  const tier = input.model === undefined ? tierBelow(input.tier) : undefined;
  const strategy = input.strategy === 'dag' ? 'simple' : undefined;
  return {
    input: {
      ...input,
      ...(tier === undefined ? {} : { tier }),
      ...(strategy === undefined ? {} : { strategy }),
    },
    degradation: {
      ...health,
      ...(tier === undefined || input.tier === undefined ? {} : { tier: { asked: input.tier, given: tier } }),
      ...(strategy === undefined ? {} : { strategy: { asked: input.strategy, given: strategy } }),
    },
  };
}

/** Undefined where there is none. */
function tierBelow(tier: Tier | undefined): Tier | undefined {
  return tier === undefined ? undefined : TIERS[TIERS.indexOf(tier) - 1];
}

/** Share of a task's steps that must have succeeded. Strategies that are not named want them all, like `simple`. */
const SHARES_NEEDED: Readonly<Record<string, number>> = { simple: 1, dag: 0.5 };

/** How a task ends by its steps: with all of them it is completed; with some, what is left may do while something is down. */
export function endedStatus(
  steps: readonly { readonly status: string }[],
  { strategy, level }: { readonly strategy: string; readonly level: DegradationLevel },
): Extract<EndedStatus, 'completed' | 'partial' | 'failed'> {
  const succeeded = steps.filter(({ status }) => status === 'completed').length;
  if (succeeded === steps.length) return 'completed';
  if (succeeded === 0 || level === 'none') return 'failed';
  const share = succeeded / steps.length;
  return level === 'severe' || share >= (SHARES_NEEDED[strategy] ?? 1) ? 'partial' : 'failed';
}
