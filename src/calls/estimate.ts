// What a call may take at most, and what a lost attempt is booked at. Both use the settlement's own price rules.

import type { Attempt, Charge } from '../stores/ledger.ts';
import type { Estimate } from '../task/budget.ts';
import { messageText } from '../task/message.ts';
import { costNanoUsd, type PriceEntry, priceAt } from '../task/price.ts';
import { NO_USAGE, type Usage } from '../task/usage.ts';
import type { CallDependencies, CallRequest } from './call.ts';

/** An upper bound of a call: every input token fresh, every output token used. Undefined when no price is known for now. */
export function estimateCall(
  dependencies: Pick<CallDependencies, 'catalog' | 'tokens'>,
  request: Pick<CallRequest, 'model' | 'messages' | 'responseFormat' | 'maxOutputTokens'>,
  nowMs: number,
): Estimate | undefined {
  const prices = dependencies.catalog.modelOf(request.model)?.prices ?? [];
  const price = priceAt(prices, nowMs);
  if (price === undefined) return undefined;
  const inputTokens = dependencies.tokens.upperBound(request.messages, request.responseFormat);
  return {
    inputTokens,
    maxOutputTokens: request.maxOutputTokens,
    tokens: inputTokens + request.maxOutputTokens,
    nanoUsd: dearest(price, inputTokens, request.maxOutputTokens),
  };
}

/** What a usage costs at the prices that held when the attempt was held. */
export function priceUsage(
  dependencies: Pick<CallDependencies, 'catalog'>,
  attempt: Pick<Attempt, 'model' | 'heldAt'>,
  usage: Usage,
): bigint {
  const price = priceOf(dependencies, attempt);
  if (price === undefined) throw new Error(`no price of ${attempt.model} at ${attempt.heldAt.toISOString()}`);
  return costNanoUsd(price, usage);
}

function priceOf(
  dependencies: Pick<CallDependencies, 'catalog'>,
  attempt: Pick<Attempt, 'model' | 'heldAt'>,
): PriceEntry | undefined {
  return priceAt(dependencies.catalog.modelOf(attempt.model)?.prices ?? [], attempt.heldAt.getTime());
}

/**
 * What an attempt is booked at that reached a provider, or may have, and did not live to tell: counted input and the output seen so
 * far, else the model's usual output. Never above the hold.
 */
export async function estimateLost(
  dependencies: Pick<CallDependencies, 'catalog' | 'tokens' | 'ledger' | 'messagesOf' | 'settings'>,
  attempt: Attempt,
  outputTokensSeen: number,
): Promise<Charge> {
  const { estimate } = attempt;
  const policy = dependencies.settings.estimatePolicy;
  const inputTokens =
    policy === 'charge_max' ? estimate.inputTokens : await countInput(dependencies, attempt);
  const outputTokens = await lostOutput(dependencies, attempt, outputTokensSeen);
  const usage: Usage = {
    ...NO_USAGE,
    inputTokens: Math.min(inputTokens, estimate.inputTokens),
    outputTokens: Math.min(outputTokens, estimate.maxOutputTokens),
  };
  // A model that this process does not know (another release holds its price) is booked at its hold.
  const isPriced = priceOf(dependencies, attempt) !== undefined;
  const cost =
    policy === 'charge_max' || !isPriced ? estimate.nanoUsd : priceUsage(dependencies, attempt, usage);
  return { usage, nanoUsd: cost < estimate.nanoUsd ? cost : estimate.nanoUsd, source: 'estimated' };
}

async function lostOutput(
  dependencies: Pick<CallDependencies, 'ledger' | 'settings'>,
  attempt: Attempt,
  seen: number,
): Promise<number> {
  switch (dependencies.settings.estimatePolicy) {
    case 'charge_max':
      return attempt.estimate.maxOutputTokens;
    case 'charge_input':
      return 0;
    case 'charge_estimate':
      if (seen > 0) return seen;
      return (
        (await dependencies.ledger.medianOutputTokens(attempt.model)) ?? attempt.estimate.maxOutputTokens
      );
    default:
      return dependencies.settings.estimatePolicy satisfies never;
  }
}

async function countInput(
  dependencies: Pick<CallDependencies, 'tokens' | 'messagesOf'>,
  attempt: Attempt,
): Promise<number> {
  const messages = await dependencies.messagesOf(attempt.payer);
  return messages === undefined ? attempt.estimate.inputTokens : countMessages(dependencies, messages);
}

/** Input tokens by our own count, for an attempt whose provider did not tell. */
export function countMessages(
  dependencies: Pick<CallDependencies, 'tokens'>,
  messages: CallRequest['messages'],
): Promise<number> {
  return dependencies.tokens.count(messages.map(messageText).join('\n'));
}

/** The dearest way to spend so many input tokens: some providers charge more for writing a cache than for fresh input. */
function dearest(price: PriceEntry, inputTokens: number, outputTokens: number): bigint {
  const output = { ...NO_USAGE, outputTokens };
  const ways: readonly Usage[] = [
    { ...output, inputTokens },
    { ...output, cacheWrite5mTokens: inputTokens },
    { ...output, cacheWrite1hTokens: inputTokens },
  ];
  return ways.map((usage) => costNanoUsd(price, usage)).reduce((most, cost) => (cost > most ? cost : most));
}
