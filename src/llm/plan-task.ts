// From a valid input and the configuration to the settings a task runs with: its model, its output, its own limits. `begin` and the
// gateway ask the same function, so that both refuse the same inputs.

import type { Limit } from '../task/budget.ts';
import type { TaskPlan, TaskSettings } from '../task/decision.ts';
import type { Fault } from '../task/failure.ts';
import { type Priority, type TaskInput, TIERS, type Tier } from '../task/input.ts';
import { parseUsd } from '../task/money.ts';

export type PlanModel = { readonly maxOutputTokens: number };

export type PlanConfig = {
  readonly models: Readonly<Record<string, PlanModel>>;
  readonly tiers: Readonly<Record<Tier, readonly string[]>>;
  /** Whether the provider of a model is configured. */
  readonly isAvailable: (model: string) => boolean;
  readonly taskLimits: readonly Limit[];
  readonly callMaxDurationMs: number;
  readonly heartbeatTimeoutMs: number;
  readonly heldWaitMs: number;
  readonly maxTextBytes: number;
  readonly priorityQueues: boolean;
  readonly searchAttributes: boolean;
};

const DEFAULT_TIER: Tier = 'small';
const DEFAULT_MAX_OUTPUT_TOKENS = 4_096;
const WARN_AT = 0.8;
/** A task's default limits, in tenths: critical twice as much, low half. */
const PRIORITY_TENTHS = { critical: 20n, high: 15n, normal: 10n, low: 5n } as const satisfies Record<
  Priority,
  bigint
>;

export function createTaskPlan(config: PlanConfig): (input: TaskInput) => TaskPlan {
  return (input) => {
    const candidates = candidatesOf(config, input);
    const model = candidates[0] ?? '';
    const largest = config.models[model]?.maxOutputTokens;
    const faults = [
      ...modelFaults(config, input),
      ...toolFaults(input),
      ...outputFaults(input, model, largest),
    ];
    if (faults.length > 0) return { kind: 'invalid', faults };
    const maxOutputTokens =
      input.maxOutputTokens ?? Math.min(DEFAULT_MAX_OUTPUT_TOKENS, largest ?? DEFAULT_MAX_OUTPUT_TOKENS);
    const settings: TaskSettings = {
      model,
      candidates: candidates.slice(0, 1),
      cheaper: input.budget.onExceeded === 'degrade' ? cheaperOf(config, input, maxOutputTokens) : [],
      onExceeded: input.budget.onExceeded,
      approval: input.approval,
      abort: input.abort,
      strategy: input.strategy === 'auto' ? 'simple' : input.strategy,
      maxOutputTokens,
      callMaxDurationMs: config.callMaxDurationMs,
      heartbeatTimeoutMs: config.heartbeatTimeoutMs,
      heldWaitMs: config.heldWaitMs,
      maxTextBytes: config.maxTextBytes,
      searchAttributes: config.searchAttributes,
      priorityQueues: config.priorityQueues,
    };
    return { kind: 'planned', settings, limits: limitsOf(config, input) };
  };
}

/** Models in the order in which they are tried: those whose provider is configured, else all, so that the task says what is missing. */
function candidatesOf(config: PlanConfig, input: TaskInput): readonly string[] {
  if (input.model !== undefined) return [input.model];
  const tier = config.tiers[input.tier ?? DEFAULT_TIER];
  const available = tier.filter(config.isAvailable);
  return available.length > 0 ? available : tier;
}

/**
 * Models of the tiers below the first candidate's, dearest tier first, for a task that would rather take less than nothing. One that
 * cannot write as much as was asked for would refuse the request.
 */
function cheaperOf(config: PlanConfig, input: TaskInput, maxOutputTokens: number): readonly string[] {
  const [model = ''] = candidatesOf(config, input);
  const own = input.model === undefined ? (input.tier ?? DEFAULT_TIER) : tierOf(config, model);
  const below = own === undefined ? [] : TIERS.slice(0, TIERS.indexOf(own)).toReversed();
  const models = below.flatMap((tier) => config.tiers[tier].filter(config.isAvailable));
  const isFit = (other: string) =>
    other !== model && (config.models[other]?.maxOutputTokens ?? maxOutputTokens) >= maxOutputTokens;
  return [...new Set(models)].filter(isFit);
}

/** The lowest tier that lists a model; undefined for a model that no tier has. */
function tierOf(config: PlanConfig, model: string): Tier | undefined {
  return TIERS.find((tier) => config.tiers[tier].includes(model));
}

function modelFaults(config: PlanConfig, input: TaskInput): Fault[] {
  if (input.model === undefined || config.models[input.model] !== undefined) return [];
  return [
    {
      path: 'model',
      expected: `a model out of ${Object.keys(config.models).join(', ')}`,
      got: JSON.stringify(input.model),
    },
  ];
}

function toolFaults(input: TaskInput): Fault[] {
  return input.tools.map((name, index) => ({
    path: `tools.${index}`,
    expected: 'a known tool (there is none yet)',
    got: JSON.stringify(name),
  }));
}

function outputFaults(input: TaskInput, model: string, largest: number | undefined): Fault[] {
  if (input.maxOutputTokens === undefined || largest === undefined || input.maxOutputTokens <= largest)
    return [];
  return [
    {
      path: 'maxOutputTokens',
      expected: `at most ${largest}, the largest output of ${model}`,
      got: `${input.maxOutputTokens}`,
    },
  ];
}

/** What the task asks for replaces the defaults of its own scope; every other scope's limits bind it all the same. */
function limitsOf(config: PlanConfig, input: TaskInput): readonly Limit[] {
  const { usd, tokens } = input.budget;
  const common = { window: 'total', hard: true, warnAt: WARN_AT } as const;
  const own: Limit[] = [];
  const nano = usd === undefined ? undefined : parseUsd(usd);
  if (nano !== undefined) own.push({ ...common, unit: 'usd', amount: nano });
  if (tokens !== undefined) own.push({ ...common, unit: 'tokens', amount: BigInt(tokens) });
  if (own.length > 0) return own;
  const tenths = PRIORITY_TENTHS[input.priority];
  return config.taskLimits.map((limit) => ({ ...limit, amount: (limit.amount * tenths) / 10n }));
}
