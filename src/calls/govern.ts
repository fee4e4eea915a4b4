// One governed call: a stored result is returned, an earlier attempt is resolved, then breaker, hold, permit, intent, request, settle,
// release, publish. Knows nothing of Temporal or the web; whoever calls it decides what to do with the outcome.

import type { LlmError } from '../llm/error.ts';
import type { CallResult } from '../stores/ledger.ts';
import type { PassOutcome } from '../task/breaker.ts';
import type { Estimate } from '../task/budget.ts';
import type { CallOutcome } from '../task/decision.ts';
import { formatUsd } from '../task/money.ts';
import { toUsageTotals } from '../task/usage.ts';
import { judge, type Verdict } from '../task/verdict.ts';
import { type Admission, admit } from './admit.ts';
import type { Pass } from './breaker-machine.ts';
import { type CallContext, type CallDependencies, type CallRequest, providerOf } from './call.ts';
import { estimateCall } from './estimate.ts';
import { unbook } from './permit.ts';
import { recover } from './recover.ts';
import { noteOutcome, noteVisit } from './route-meter.ts';
import { type Sent, send } from './send.ts';
import { settle } from './settle.ts';

/** The provider failed in a way that another attempt at the same model may mend. */
export class AttemptFailed extends Error {
  constructor(message: string, options: { cause: unknown }) {
    super(message, options);
    this.name = 'AttemptFailed';
  }
}

/** The call was stopped: by its user, or so that another worker goes on with it. */
export class CallAborted extends Error {
  readonly by: 'cancelled' | 'handover' | 'fenced';

  constructor(by: 'cancelled' | 'handover' | 'fenced') {
    super(`the call was ${by}`);
    this.name = 'CallAborted';
    this.by = by;
  }
}

/** Attempts whose gate moved or whose hold was taken begin again; more than this many in a row is an outage. */
const MAX_TRIES = 10;
/** Of one provider, in one visit: fewer than the tries, so that the last one still comes to a verdict. */
const MAX_KEYS = 8;

export type Calls = ReturnType<typeof createCalls>;

export function createCalls(dependencies: CallDependencies) {
  return {
    /**
     * One visit of a call. Limits are outcomes.
     * @throws AttemptFailed when the same model may be tried again · CallAborted when the context's signal fired · anything else:
     * a store is down, to be tried again later
     */
    visit: (request: CallRequest, context: CallContext): Promise<CallOutcome> =>
      // A copy keeps the present list of prices: what a visit holds by it, it settles by it.
      routed({ ...dependencies }, request, context),
  };
}

/** Counts what was asked for against what answered, and asks no model for more than it can write. */
async function routed(
  dependencies: CallDependencies,
  request: CallRequest,
  context: CallContext,
): Promise<CallOutcome> {
  noteVisit(dependencies, request);
  const largest = dependencies.catalog.modelOf(request.model)?.maxOutputTokens ?? request.maxOutputTokens;
  const maxOutputTokens = Math.min(request.maxOutputTokens, largest);
  const outcome = await visit(dependencies, { ...request, maxOutputTokens }, context);
  noteOutcome(dependencies, request, outcome);
  // Refused or sent on, it does not come for the place that it has booked.
  if (request.isBooked === true && !['completed', 'wait', 'held'].includes(outcome.kind))
    await unbook(dependencies, request);
  return outcome;
}

async function visit(
  dependencies: CallDependencies,
  request: CallRequest,
  context: CallContext,
): Promise<CallOutcome> {
  for (let tries = 0; tries < MAX_TRIES; tries += 1) {
    context.signal.throwIfAborted();
    // Before every try: while this worker was frozen another one may have answered the call, or be at it.
    const before = await storedOutcome(dependencies, request);
    if (before !== undefined) return before;
    await recover(dependencies, request, context);
    const recovered = await storedOutcome(dependencies, request);
    if (recovered !== undefined) return recovered;
    const outcome = await tryOnce(dependencies, request, context, tries);
    if (outcome !== 'again') return outcome;
  }
  throw new Error(`call ${request.callKey} found its hold gone ${MAX_TRIES} times in a row`);
}

async function tryOnce(
  dependencies: CallDependencies,
  request: CallRequest,
  context: CallContext,
  tries: number,
): Promise<CallOutcome | 'again'> {
  // A model that is gone from models.yaml cannot be called any more, although its provider is there.
  if (!dependencies.models.has(request.model) || dependencies.catalog.modelOf(request.model) === undefined)
    return { kind: 'unavailable', reason: 'provider_not_configured', model: request.model };
  const estimate = estimateCall(dependencies, request, Date.now());
  if (estimate === undefined) return { kind: 'unavailable', reason: 'price_unknown', model: request.model };
  const entry = await dependencies.breakerOf(request.model).enter();
  if (entry.kind === 'refused') {
    const { retryAfterMs } = entry;
    return { kind: 'unavailable', reason: 'breaker_open', model: request.model, retryAfterMs };
  }
  try {
    return await admitAndSend(dependencies, request, context, { estimate, tries, pass: entry.pass });
  } finally {
    // Nothing was sent, or the pass has ended with what came of it. One that is left open keeps others from trying.
    entry.pass.end('unknown');
  }
}

async function admitAndSend(
  dependencies: CallDependencies,
  request: CallRequest,
  context: CallContext,
  { estimate, tries, pass }: { readonly estimate: Estimate; readonly tries: number; readonly pass: Pass },
): Promise<CallOutcome | 'again'> {
  const admission = await admit(dependencies, request, context, { estimate, tries });
  switch (admission.kind) {
    case 'again':
      return 'again';
    case 'outcome':
      return admission.outcome;
    case 'admitted':
      return attemptOnce(dependencies, request, context, { ...admission, tries, pass });
    default:
      return admission satisfies never;
  }
}

type Admitted = Extract<Admission, { kind: 'admitted' }>;

async function attemptOnce(
  dependencies: CallDependencies,
  request: CallRequest,
  context: CallContext,
  { attempt, tries, pressure, sendBy, pass }: Admitted & { readonly tries: number; readonly pass: Pass },
): Promise<CallOutcome | 'again'> {
  // Readers are told beside the request, never before it: a slow store must not eat into the lease.
  const begun = publish(dependencies, request);
  const startedAt = performance.now();
  const watch = await send(dependencies, request, context, { attempt, begun, sendBy });
  pass.end(taughtBy(watch.outcome));
  try {
    const settlement = await settle(dependencies, request, context, { attempt, sent: watch.outcome });
    await begun;
    await publish(dependencies, request);
    if (settlement === 'fenced') throw new CallAborted('fenced');
  } finally {
    watch.stop();
  }
  const seconds = (performance.now() - startedAt) / 1000;
  dependencies.meter.answered({ provider: attempt.provider, model: attempt.model, seconds });
  const outcome = await conclude(dependencies, request, watch.outcome, tries);
  return outcome !== 'again' && outcome.kind === 'completed' && pressure !== undefined
    ? { ...outcome, pressure }
    : outcome;
}

async function conclude(
  dependencies: CallDependencies,
  request: CallRequest,
  sent: Sent,
  tries: number,
): Promise<CallOutcome | 'again'> {
  switch (sent.kind) {
    case 'answered': {
      const stored = await storedOutcome(dependencies, request);
      if (stored === undefined) throw new Error(`call ${request.callKey} was settled without a result`);
      return stored;
    }
    case 'aborted':
      throw new CallAborted(sent.by);
    case 'failed':
      return afterFailure(dependencies, request, sent.error, tries);
    default:
      return sent satisfies never;
  }
}

async function afterFailure(
  dependencies: CallDependencies,
  request: CallRequest,
  error: LlmError,
  tries: number,
): Promise<CallOutcome | 'again'> {
  const { kind } = error;
  // An abort that neither our limits nor the context caused: the connection was closed under us.
  const fault = {
    kind: kind === 'aborted' ? ('connection' as const) : kind,
    status: error.status,
    retryAfterMs: error.retryAfterMs,
  };
  const counts = await dependencies.ledger.failures(request.callKey);
  const own = counts.find((count) => count.candidate === request.number.candidate);
  const verdict = judge(fault, {
    model: request.model,
    failedAttempts: own?.failed ?? 0,
    attemptsPerCandidate: dependencies.settings.attemptsPerCandidate,
    failedAttemptsOfCall: counts.reduce((sum, count) => sum + count.failed, 0),
    attemptsPerCall: dependencies.settings.attemptsPerCall,
    unhintedWaits: Math.max(0, (own?.throttled ?? 1) - 1),
    remainingMs: request.remainingMs,
    candidatesLeft: request.candidatesLeft ?? 0,
    shortHintMs: dependencies.settings.shortHintMs,
    hasOtherKey: error.hasOtherKey && tries < MAX_KEYS,
  });
  return actOn(request, verdict, error);
}

function actOn(request: CallRequest, verdict: Verdict, error: LlmError): CallOutcome | 'again' {
  const provider = providerOf(request.model);
  const { model } = request;
  switch (verdict.kind) {
    case 'retry':
      throw new AttemptFailed(`the attempt at ${model} failed: ${error.kind}`, { cause: error });
    case 'wait':
      return {
        kind: 'wait',
        reason: 'provider_limit',
        ms: verdict.ms,
        limit: `${provider} throttled the request`,
      };
    case 'next_key':
      // A request of its own, with a hold and a row of its own.
      return 'again';
    case 'unavailable':
      return { ...verdict, model };
    case 'refuse':
      return verdict;
    default:
      return verdict satisfies never;
  }
}

/** What the call answered before, whoever made the attempt. */
async function storedOutcome(
  dependencies: CallDependencies,
  request: CallRequest,
): Promise<CallOutcome | undefined> {
  const result = await dependencies.ledger.result(request.callKey);
  if (result === undefined) return undefined;
  if (result.status === 'cancelled') throw new CallAborted('cancelled');
  return toCompleted(request, result);
}

function toCompleted(request: CallRequest, result: CallResult): CallOutcome {
  const { maxOutputTokens } = result;
  return {
    kind: 'completed',
    callKey: result.callKey,
    model: result.model,
    usage: toUsageTotals(result.usage),
    costUsd: formatUsd(result.nanoUsd),
    finishReason: result.finishReason,
    ...(maxOutputTokens < request.maxOutputTokens ? { clampedTo: maxOutputTokens } : {}),
  };
}

/** What an attempt says of its provider. One that we ended ourselves says nothing. */
function taughtBy(sent: Sent): PassOutcome {
  if (sent.kind === 'aborted') return 'unknown';
  return sent.kind === 'failed' && isProviderFailure(sent.error) ? 'failed' : 'succeeded';
}

/** Visible soon: what could not be published now is found by the sweeper. */
async function publish(dependencies: CallDependencies, request: CallRequest): Promise<void> {
  if (request.task === undefined) return;
  await dependencies.events.publishPending(request.task).catch((error: unknown) => {
    dependencies.log.warn('events left to the sweeper', { taskId: request.task?.taskId, error });
  });
}

/** Whether a provider's error speaks against the provider: not the caller's fault, not a limit, whatever words came with the status. */
export function isProviderFailure(error: unknown): boolean {
  if (typeof error !== 'object' || error === null) return false;
  const [kind, status]: unknown[] = [Reflect.get(error, 'kind'), Reflect.get(error, 'status')];
  if (typeof status === 'number' && status >= 400 && status < 500 && status !== 408) return false;
  return kind === 'timeout' || kind === 'connection' || kind === 'cut' || kind === 'unknown';
}
