// What one governed call takes and needs: its request, the circumstances of the visit, and the parts it is made of.

import type { LanguageModels } from '../llm/language-model.ts';
import type { Logger } from '../log.ts';
import type { BudgetGate } from '../stores/budget-gate.ts';
import type { Events } from '../stores/events.ts';
import type { LearntRates } from '../stores/learnt-rates.ts';
import type { Ledger } from '../stores/ledger.ts';
import type { Limits } from '../stores/limits.ts';
import type { MilestoneTask } from '../stores/milestones.ts';
import type { Rates } from '../stores/rates.ts';
import type { Thresholds } from '../stores/thresholds.ts';
import type { ExceededPolicy, Payer } from '../task/budget.ts';
import type { EventDraft } from '../task/event.ts';
import type { AbortPolicy, Priority, ReasoningEffort, Tier } from '../task/input.ts';
import type { Fallback } from '../task/journey.ts';
import type { AttemptNumber } from '../task/keys.ts';
import type { Message, ResponseFormat } from '../task/message.ts';
import type { PriceEntry } from '../task/price.ts';
import type { Breaker } from './breaker.ts';
import type { DeltaRoom } from './delta-room.ts';
import type { DropReason } from './deltas.ts';
import type { Backpressure } from './ladder.ts';
import type { SpendBreaker } from './spend-breaker.ts';

export type CallRequest = {
  readonly callKey: string;
  readonly stepId: string;
  readonly payer: Payer;
  /** Where the call's events go; a direct chat has none. */
  readonly task: MilestoneTask | undefined;
  /** `provider/model` */
  readonly model: string;
  readonly number: Omit<AttemptNumber, 'try'>;
  readonly messages: readonly Message[];
  readonly maxOutputTokens: number;
  readonly temperature?: number | undefined;
  readonly reasoningEffort?: ReasoningEffort | undefined;
  readonly responseFormat?: ResponseFormat | undefined;
  /** How often this call already waited for other calls' holds. */
  readonly heldWaits: number;
  /** It has waited long enough for them: what they leave no room for counts as exceeded. */
  readonly heldWaitOver: boolean;
  readonly onExceeded: ExceededPolicy;
  /** Size class that was asked for; absent for a model that no tier has. */
  readonly tier?: Tier | undefined;
  /** Other models that can answer the call, now or in time: one that is throttled for long is not waited for then. Left out: none. */
  readonly candidatesLeft?: number | undefined;
  /** No visit of the call was made before this one. */
  readonly isFirst?: boolean | undefined;
  /** Why the call is not at its first model. Left out: it is. */
  readonly fallback?: Fallback | undefined;
  /** Back-pressure that the call has waited for already, in milliseconds: it is served once. */
  readonly backpressureMs: number;
  /** Time left until the deadline, Infinity without one. Milliseconds. */
  readonly remainingMs: number;
  /** Left out: normal. */
  readonly priority?: Priority | undefined;
  /** Since when the call waits, by a server's clock; in milliseconds since 1970. Left out: it never grows old. */
  readonly queuedAtMs?: number | undefined;
  /** A longer wait is not spent, in milliseconds. Left out: any that ends in time. */
  readonly waitLeftMs?: number | undefined;
  /** The call was told that a place in rate control is booked for it. */
  readonly isBooked?: boolean | undefined;
};

/** Who runs the visit and how to stop it. */
export type CallContext = {
  /** `activity <workflowId>/<runId>/<activityId>/<attempt>` or `process <instanceId>`: whose life proves the hold's. */
  readonly owner: string;
  readonly signal: AbortSignal;
  /** Why the signal fired, always the same: the user's wish ends the call, a handover lets somebody else go on with it. */
  readonly abortReason: () => 'cancelled' | 'handover';
  /** What the user's wish does to a request that is under way; one that was not sent is not sent. */
  readonly abort: AbortPolicy;
  /** Fires when this process can wait no longer for a call that outlives its cancellation: it is then settled as it stands. */
  readonly letGo: AbortSignal;
  /** Output tokens that the attempt before this one had told when it was lost; 0 when nothing is known. */
  readonly seenBefore: number;
  /** Told the output tokens so far as they come; whoever proves the call's life passes them on. */
  readonly beat: (outputTokens: number) => void;
};

/** Models with their prices, as configured at one moment. */
export type Catalog = {
  readonly priceHash: string;
  /** An earlier list, as long as it is known: what it held, it settles. Left out: there was none. */
  listOf?(priceHash: string): Catalog | undefined;
  /** Undefined when the model is not configured. */
  modelOf(id: string):
    | {
        readonly tier?: Tier;
        readonly maxOutputTokens: number;
        readonly prices: readonly PriceEntry[];
      }
    | undefined;
};

export type TokenCounter = {
  /** An upper bound without a tokenizer. */
  upperBound(messages: readonly Message[], responseFormat: ResponseFormat | undefined): number;
  /** A closer bound by a tokenizer, with a margin where it is not the model's own. Slow: off the hot path. */
  closerBound(
    model: string,
    messages: readonly Message[],
    responseFormat: ResponseFormat | undefined,
  ): Promise<number>;
  count(text: string): Promise<number>;
};

export type CallSettings = {
  readonly firstTokenMs: number;
  readonly chunkGapMs: number;
  readonly attemptMs: number;
  readonly inlineWaitMs: number;
  readonly leaseMs: number;
  readonly leaseRenewalMs: number;
  readonly attemptsPerCandidate: number;
  readonly attemptsPerCall: number;
  /** A provider that says "not before" is waited for so long although another model is left. */
  readonly shortHintMs: number;
  readonly estimatePolicy: 'charge_estimate' | 'charge_max' | 'charge_input';
  readonly rateControl: boolean;
  readonly backpressure: Backpressure;
  readonly deltaIntervalMs: number;
  readonly deltaBytes: number;
  /** How long the end of a call waits for Redis to take the rest of its streamed text. */
  readonly deltaFlushMs: number;
  /** How long a cancelled call of the policy `drain` is read on for its usage. */
  readonly drainCapMs: number;
  /** What becomes of a call whose model has no price: never priced at nothing. */
  readonly unknownPrice: 'refuse' | 'ceiling' | 'flag';
  /** Prices that stand in for an unknown one; nano-USD per million tokens. */
  readonly ceiling: { readonly input: bigint; readonly output: bigint };
};

/** What happens in calls, for metrics; ids never go there. */
export type CallMeter = {
  attemptEnded(attempt: { provider: string; model: string; outcome: string }): void;
  answered(call: { provider: string; model: string; seconds: number }): void;
  firstToken(call: { provider: string; model: string; seconds: number }): void;
  settled(charge: { provider: string; usd: number }): void;
  refused(refusal: { scope: string; reason: string }): void;
  overrun(provider: string): void;
  /** Cost of an attempt as a share of its hold. */
  holdRatio(provider: string, ratio: number): void;
  /** Projected use of a call's tightest limit, as a share of it. */
  pressed(scope: string, ratio: number): void;
  slowedDown(scope: string, seconds: number): void;
  delayed(delay: { provider: string; dimension: string; seconds: number }): void;
  throttled(provider: string): void;
  deltaDropped(reason: DropReason, pieces: number): void;
  priceUnknown(provider: string): void;
  /** A call begins: what its task asked for. */
  requested(route: { tier: string; provider: string }): void;
  /** A call was answered, and why not by the model that was asked for. */
  selected(route: { tier: string; provider: string; reason: string }): void;
  /** A call goes on at another model; the tier that was asked for, and the provider that could not answer. */
  fellBack(route: { tier: string; provider: string; reason: string }): void;
};

export type CallDependencies = {
  readonly models: LanguageModels;
  /** The present one. It may be another one at the next reading: a visit holds on to its own. */
  readonly catalog: Catalog;
  readonly tokens: TokenCounter;
  readonly gate: BudgetGate;
  readonly ledger: Ledger;
  readonly limits: Limits;
  readonly thresholds: Thresholds;
  readonly spendBreaker: SpendBreaker;
  readonly rates: Rates;
  readonly learntRates: Pick<LearntRates, 'heard' | 'throttled'>;
  readonly events: Events;
  /** Where streamed text waits for Redis; one for all calls of a process. */
  readonly deltaRoom: DeltaRoom;
  readonly breakerOf: (model: string) => Pick<Breaker, 'enter'>;
  /** Messages of an attempt that somebody else made, to count its input; undefined when they are gone. */
  readonly messagesOf: (payer: Payer) => Promise<readonly Message[] | undefined>;
  /** Whether an error says that a store is away, and not that something was wrong with what it was asked. */
  readonly isOutage: (error: unknown) => boolean;
  /** Waits in the process; rejects at once when the signal fires. Milliseconds. */
  readonly pause: (ms: number, signal?: AbortSignal) => Promise<void>;
  readonly settings: CallSettings;
  readonly meter: CallMeter;
  readonly log: Logger;
};

export function providerOf(model: string): string {
  return model.slice(0, model.indexOf('/'));
}

/** Events of an attempt, for the transaction of their cause; nothing for a call without a task. */
export function caused(request: Pick<CallRequest, 'task'>, ...events: readonly EventDraft[]) {
  return request.task === undefined ? undefined : { task: request.task, events };
}
