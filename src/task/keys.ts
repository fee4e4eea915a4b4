// Names of calls and attempts. A call key is made in workflow code and travels as an argument, so that every repetition of an
// activity, on any worker, speaks of the same call. Pure.

/** One logical model call: `taskId:runId:step:n`. */
export function toCallKey(call: { taskId: string; runId: string; stepId: string; n: number }): string {
  return `${call.taskId}:${call.runId}:${call.stepId}:${call.n}`;
}

/** Which of a call's attempts: the candidate, the workflow's visit, Temporal's attempt, the restart inside it. */
export type AttemptNumber = {
  readonly candidate: number;
  readonly visit: number;
  readonly attempt: number;
  readonly try: number;
};

/** One request sent to a provider: `callKey#candidate.visit.attempt.try`. Never used again once voided or settled. */
export function toAttemptKey(callKey: string, number: AttemptNumber): string {
  return `${callKey}#${number.candidate}.${number.visit}.${number.attempt}.${number.try}`;
}

/** The call that an attempt belongs to. */
export function toCallKeyOfAttempt(attemptKey: string): string {
  return attemptKey.slice(0, attemptKey.lastIndexOf('#'));
}

/**
 * Orders the attempts of one call: visits rise over the whole call, candidates may come back. Below 2^52 for 9 million visits, 10,000
 * attempts and 10,000 tries. Undefined for what is no attempt key.
 */
export function attemptOrder(attemptKey: string): number | undefined {
  const [, visit, attempt, tries] = /#\d+\.(\d+)\.(\d+)\.(\d+)$/.exec(attemptKey) ?? [];
  if (visit === undefined) return undefined;
  return (
    (Number(visit) * 10_000 + Math.min(Number(attempt), 9_999)) * 10_000 + Math.min(Number(tries), 9_999)
  );
}
