// From a valid input and the configuration to the settings a task runs with: its model, its output, its own limits. `begin` and the
// gateway ask the same function, so that both refuse the same inputs.

import type { Limit } from '../task/budget.ts';
import type { TaskPlan, TaskSettings } from '../task/decision.ts';
import type { Fault } from '../task/failure.ts';
import { type Priority, type TaskInput, TIERS, type Tier } from '../task/input.ts';
import { parseUsd } from '../task/money.ts';
import { inOrder, type TierRoute } from './candidates.ts';

export type PlanModel = { readonly maxOutputTokens: number };

export type PlanConfig = {
  readonly models: Readonly<Record<string, PlanModel>>;
  readonly tiers: Readonly<Record<Tier, TierRoute>>;
  /** Whether the provider of a model is configured. */
  readonly isAvailable: (model: string) => boolean;
  /** What a call with this input may cost at most, in nano-USD; undefined where no price is known. Left out: none is. */
  readonly costOf?: (model: string, input: TaskInput, maxOutputTokens: number) => bigint | undefined;
  /** Counts the calls of a tier, for those that are served in turn. Left out: every call is the first. */
  readonly turnOf?: (tier: Tier) => number;
  readonly shortHintMs: number;
  readonly taskLimits: readonly Limit[];
  readonly callMaxDurationMs: number;
  readonly heartbeatTimeoutMs: number;
  readonly heldWaitMs: number;
  readonly maxTextBytes: number;
  readonly priorityQueues: boolean;
  /** By tenant; left out: all have the same share of a queue. */
  readonly fairnessWeightOf?: (tenantId: string) => number;
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
    const maxOutputTokens = outputOf(config, input, model);
    const settings: TaskSettings = {
      model,
      ...tierOfTask(config, input),
      candidates,
      shortHintMs: config.shortHintMs,
      cheaper:
        input.budget.onExceeded === 'degrade'
          ? cheaperOf(config, input, { candidates, maxOutputTokens })
          : [],
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
      fairnessWeight: config.fairnessWeightOf?.(input.tenantId) ?? 1,
    };
    const isFree = config.costOf?.(model, input, maxOutputTokens) === 0n;
    return { kind: 'planned', settings, limits: limitsOf(config, input), isFree };
  };
}

/**
 * Models in the order in which they are tried: those whose provider is configured, else all, so that the task says what is missing.
 * One that cannot write as much as was asked for would refuse the request.
 */
function candidatesOf(config: PlanConfig, input: TaskInput): readonly string[] {
  if (input.model !== undefined) return [input.model];
  const tier = input.tier ?? DEFAULT_TIER;
  const { strategy, candidates } = config.tiers[tier];
  const available = candidates.filter(config.isAvailable);
  const usable = available.length > 0 ? available : candidates;
  const fit = usable.filter((model) => isFit(config, model, input.maxOutputTokens ?? 0));
  return inOrder(strategy, fit.length > 0 ? fit : usable, {
    costOf: (model) => config.costOf?.(model, input, outputOf(config, input, model)),
    turn: () => config.turnOf?.(tier) ?? 0,
  });
}

function isFit(config: PlanConfig, model: string, maxOutputTokens: number): boolean {
  return (config.models[model]?.maxOutputTokens ?? maxOutputTokens) >= maxOutputTokens;
}

/** Output that a model is asked for. */
function outputOf(config: PlanConfig, input: TaskInput, model: string): number {
  const largest = config.models[model]?.maxOutputTokens ?? DEFAULT_MAX_OUTPUT_TOKENS;
  return input.maxOutputTokens ?? Math.min(DEFAULT_MAX_OUTPUT_TOKENS, largest);
}

/** The tier that was asked for, or the one of the model that was; nothing for a model that no tier has. */
function tierOfTask(config: PlanConfig, input: TaskInput): { readonly tier?: Tier } {
  const tier = input.model === undefined ? (input.tier ?? DEFAULT_TIER) : tierOf(config, input.model);
  return tier === undefined ? {} : { tier };
}

/**
 * Models of the tiers below the first candidate's, dearest tier first, for a task that would rather take less than nothing. One that
 * cannot write as much as was asked for would refuse the request.
 */
function cheaperOf(
  config: PlanConfig,
  input: TaskInput,
  {
    candidates,
    maxOutputTokens,
  }: { readonly candidates: readonly string[]; readonly maxOutputTokens: number },
): readonly string[] {
  const { tier: own } = tierOfTask(config, input);
  const below = own === undefined ? [] : TIERS.slice(0, TIERS.indexOf(own)).toReversed();
  const models = below.flatMap((tier) => config.tiers[tier].candidates.filter(config.isAvailable));
  return [...new Set(models)].filter(
    (other) => !candidates.includes(other) && isFit(config, other, maxOutputTokens),
  );
}

/** The lowest tier that lists a model; undefined for a model that no tier has. */
function tierOf(config: PlanConfig, model: string): Tier | undefined {
  return TIERS.find((tier) => config.tiers[tier].candidates.includes(model));
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
