// How hard a model is asked to think, in the words of each protocol. Pure. Thoughts are output: what is asked for never makes a request
// larger than the output it was held for.

import type { ReasoningEffort } from '../task/input.ts';
import type { Protocol } from './protocol.ts';

/** What a request carries for it. */
export type ReasoningRequest = {
  readonly maxOutputTokens: number;
  /** By the AI SDK's name of the provider. */
  readonly providerOptions: Readonly<Record<string, ReasoningOptions>>;
};

type ReasoningOptions = Readonly<Record<string, string | Readonly<Record<string, string | number>>>>;

/** Share of the output that may be thought, where a protocol counts in tokens. Minimal asks Anthropic for none. */
const SHARES = { minimal: 0, low: 0.2, medium: 0.5, high: 0.8 } as const satisfies Record<
  ReasoningEffort,
  number
>;

/** Anthropic refuses smaller budgets. */
const LEAST_ANTHROPIC_BUDGET = 1_024;
/** Within what every Gemini 2.5 takes. */
const GOOGLE_BUDGETS = { least: 512, most: 24_576 } as const;

/**
 * @param name of the provider, under which an `openai-compatible` one takes its options
 * @param modelId as the provider calls it
 */
export function toReasoning(
  effort: ReasoningEffort,
  {
    protocol,
    name,
    modelId,
  }: { readonly protocol: Protocol; readonly name: string; readonly modelId: string },
  maxOutputTokens: number,
): ReasoningRequest {
  const share = Math.floor(maxOutputTokens * SHARES[effort]);
  switch (protocol) {
    case 'openai':
      return { maxOutputTokens, providerOptions: { openai: { reasoningEffort: effort } } };
    case 'openai-compatible':
      return { maxOutputTokens, providerOptions: { [name]: { reasoningEffort: effort } } };
    case 'anthropic':
      return toAnthropic(effort, modelId, { share, maxOutputTokens });
    case 'google':
      return {
        maxOutputTokens,
        providerOptions: { google: { thinkingConfig: toThinking(effort, modelId, share) } },
      };
    default:
      return protocol satisfies never;
  }
}

/** Claude up to 4.5 takes a budget, later ones a word. */
const WITH_BUDGET = /^claude-(3-7|(opus|sonnet|haiku)-4(-[0-5])?(-\d{8}|$))/;

function toAnthropic(
  effort: ReasoningEffort,
  modelId: string,
  { share, maxOutputTokens }: { readonly share: number; readonly maxOutputTokens: number },
): ReasoningRequest {
  if (!WITH_BUDGET.test(modelId)) {
    const options = effort === 'minimal' ? { effort: 'low' } : { thinking: { type: 'adaptive' }, effort };
    return { maxOutputTokens, providerOptions: { anthropic: options } };
  }
  const budgetTokens = Math.max(share, LEAST_ANTHROPIC_BUDGET);
  // Where thoughts would leave no room for an answer, the model answers at once.
  if (effort === 'minimal' || budgetTokens > maxOutputTokens * SHARES.high)
    return { maxOutputTokens, providerOptions: {} };
  return {
    // The AI SDK adds the budget to the output; on the wire the sum is what was held for.
    maxOutputTokens: maxOutputTokens - budgetTokens,
    providerOptions: { anthropic: { thinking: { type: 'enabled', budgetTokens } } },
  };
}

/** Gemini 3 takes a word, the ones before it a budget. */
function toThinking(
  effort: ReasoningEffort,
  modelId: string,
  share: number,
): Readonly<Record<string, string | number>> {
  if (/^gemini-2\.5/.test(modelId)) {
    const { least, most } = GOOGLE_BUDGETS;
    return { thinkingBudget: Math.min(Math.max(share, least), most) };
  }
  return { thinkingLevel: effort };
}
