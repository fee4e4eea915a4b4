// What a call may take at most, and what a lost attempt is booked at. Both use the settlement's own price rules.

import type { Attempt, Charge } from '../stores/ledger.ts';
import type { Estimate } from '../task/budget.ts';
import { messageText } from '../task/message.ts';
import { costNanoUsd, type PriceEntry, priceAt } from '../task/price.ts';
import { NO_USAGE, type Usage } from '../task/usage.ts';
import { type CallDependencies, type CallRequest, providerOf } from './call.ts';

type Pricing = Pick<CallDependencies, 'catalog' | 'settings'>;
type Estimated = Pick<CallRequest, 'model' | 'messages' | 'responseFormat' | 'maxOutputTokens'>;

/**
 * An upper bound of a call by the bytes of its input: every input token fresh, every output token used. An unknown price is counted.
 * @returns undefined when no price is known for now and the policy is to refuse
 */
export function estimateCall(
  dependencies: Pricing & Pick<CallDependencies, 'tokens' | 'meter' | 'log'>,
  request: Estimated,
  nowMs: number,
): Estimate | undefined {
  const prices = pricesOf(dependencies, request.model, nowMs);
  if (prices?.isKnown !== true) notePriceUnknown(dependencies, request.model);
  if (prices === undefined) return undefined;
  const inputTokens = dependencies.tokens.upperBound(request.messages, request.responseFormat);
  return toEstimate(prices.entry, inputTokens, request.maxOutputTokens);
}

/** The same for a call that is only thought of: nothing is counted or logged. */
export function foreseeCall(
  dependencies: Pricing & Pick<CallDependencies, 'tokens'>,
  request: Estimated,
  nowMs: number,
): Estimate | undefined {
  const prices = pricesOf(dependencies, request.model, nowMs);
  if (prices === undefined) return undefined;
  const inputTokens = dependencies.tokens.upperBound(request.messages, request.responseFormat);
  return toEstimate(prices.entry, inputTokens, request.maxOutputTokens);
}

/** The same by a count of the input, for a call whose first bound does not fit. Takes long; undefined as there. */
export async function estimateExactly(
  dependencies: Pricing & Pick<CallDependencies, 'tokens'>,
  request: Estimated,
  nowMs: number,
): Promise<Estimate | undefined> {
  const prices = pricesOf(dependencies, request.model, nowMs);
  if (prices === undefined) return undefined;
  const { model, messages, responseFormat } = request;
  const inputTokens = await dependencies.tokens.closerBound(model, messages, responseFormat);
  return toEstimate(prices.entry, inputTokens, request.maxOutputTokens);
}

/**
 * The largest output that still fits into the room, which is what is left of the binding limits; absent: no limit of that unit.
 * The request must be sent with the `maxOutputTokens` that is answered, or the hold would shrink without it.
 * @returns undefined when not even one token of output fits
 */
export function clampEstimate(
  dependencies: Pricing,
  estimate: Estimate,
  request: Pick<CallRequest, 'model'>,
  room: { readonly nanoUsd?: bigint | undefined; readonly tokens?: number | undefined },
  nowMs: number,
): Estimate | undefined {
  const entry = pricesOf(dependencies, request.model, nowMs)?.entry;
  if (entry === undefined) return undefined;
  const fits = (maxOutputTokens: number) => {
    const { nanoUsd, tokens } = toEstimate(entry, estimate.inputTokens, maxOutputTokens);
    return (
      (room.nanoUsd === undefined || nanoUsd <= room.nanoUsd) &&
      (room.tokens === undefined || tokens <= room.tokens)
    );
  };
  // More output never costs less, so that the largest that fits can be halved in on.
  let [fitting, tooMany] = [0, estimate.maxOutputTokens + 1];
  while (tooMany - fitting > 1) {
    const middle = Math.floor((fitting + tooMany) / 2);
    if (fits(middle)) fitting = middle;
    else tooMany = middle;
  }
  return fitting === 0 ? undefined : toEstimate(entry, estimate.inputTokens, fitting);
}

/**
 * The prices of a model at a moment. Hold, clamp and settlement all ask here, so that they cannot disagree. Where none is known, the
 * configured ceiling stands in, or nothing when the policy is to refuse.
 */
export function pricesOf(
  dependencies: Pricing,
  model: string,
  atMs: number,
): { readonly entry: PriceEntry; readonly isKnown: boolean } | undefined {
  const entry = priceAt(dependencies.catalog.modelOf(model)?.prices ?? [], atMs);
  if (entry !== undefined) return { entry, isKnown: true };
  const { unknownPrice, ceiling } = dependencies.settings;
  if (unknownPrice === 'refuse') return undefined;
  const { input, output } = ceiling;
  const inputs = { input, cachedInput: input, cacheWrite5m: input, cacheWrite1h: input };
  return { entry: { validFromMs: 0, ...inputs, output, above: [] }, isKnown: false };
}

/** What rows of an attempt carry to be found when prices change; the mark of an unknown price asks for a later re-rating. */
export function priceHashOf(dependencies: Pricing, model: string, atMs: number): string {
  const { priceHash } = dependencies.catalog;
  return pricesOf(dependencies, model, atMs)?.isKnown === false ? `${UNKNOWN_PRICE}${priceHash}` : priceHash;
}

const UNKNOWN_PRICE = 'unknown:';

function notePriceUnknown(
  { settings, meter, log }: Pick<CallDependencies, 'settings' | 'meter' | 'log'>,
  model: string,
): void {
  meter.priceUnknown(providerOf(model));
  if (settings.unknownPrice === 'flag')
    log.warn('a model without a price is called at the ceiling, to be rated again', { model });
}

type Priced = Pick<Attempt, 'model' | 'heldAt'> & Partial<Pick<Attempt, 'priceHash'>>;

/** By the list that the attempt was held with; where that is not known any more, by the present one. */
function pricesOfAttempt({ catalog, settings }: Pricing, { model, heldAt, priceHash = '' }: Priced) {
  const own = priceHash.startsWith(UNKNOWN_PRICE) ? priceHash.slice(UNKNOWN_PRICE.length) : priceHash;
  return pricesOf({ catalog: catalog.listOf?.(own) ?? catalog, settings }, model, heldAt.getTime());
}

/** What a usage costs at the prices that held when the attempt was held. */
export function priceUsage(dependencies: Pricing, attempt: Priced, usage: Usage): bigint {
  const prices = pricesOfAttempt(dependencies, attempt);
  if (prices === undefined)
    throw new Error(`no price of ${attempt.model} at ${attempt.heldAt.toISOString()}`);
  return costNanoUsd(prices.entry, usage);
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
  // A model that this process does not know (another release holds its price) is booked at its hold, not at this one's ceiling.
  const prices = pricesOfAttempt(dependencies, attempt);
  const isPriced = prices !== undefined && (prices.isKnown || attempt.priceHash.startsWith(UNKNOWN_PRICE));
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

export function toEstimate(price: PriceEntry, inputTokens: number, maxOutputTokens: number): Estimate {
  return {
    inputTokens,
    maxOutputTokens,
    tokens: inputTokens + maxOutputTokens,
    nanoUsd: dearest(price, inputTokens, maxOutputTokens),
  };
}

/**
 * The dearest way to spend at most so many input tokens. Some providers charge more for writing a cache than for fresh input; and a row
 * for long inputs may be cheaper than the one below it, where the true count can still come to lie.
 */
function dearest(price: PriceEntry, inputTokens: number, outputTokens: number): bigint {
  const output = { ...NO_USAGE, outputTokens };
  const lengths = price.above.map((row) => row.inputTokens).filter((length) => length < inputTokens);
  const ways = [inputTokens, ...lengths].flatMap((length): readonly Usage[] => [
    { ...output, inputTokens: length },
    { ...output, cacheReadTokens: length },
    { ...output, cacheWrite5mTokens: length },
    { ...output, cacheWrite1hTokens: length },
  ]);
  return ways.map((usage) => costNanoUsd(price, usage)).reduce((most, cost) => (cost > most ? cost : most));
}
