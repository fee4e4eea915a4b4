// A request that is answered with an error: what happened, in words of no particular dialect. How it looks on the wire is decided
// by the dialect alone.

export type Problem = {
  /** HTTP status, 400 to 599. */
  readonly status: number;
  readonly message: string;
  /** The provider's word for it, such as `insufficient_quota`; made from the status where absent. */
  readonly code?: string | undefined;
  /** The field at fault. */
  readonly param?: string | undefined;
  readonly retryAfterMs?: number | undefined;
  /** Which limit refused, for a 429 that a limit caused. */
  readonly limit?: 'requests' | 'tokens' | undefined;
};

export class ProblemError extends Error {
  readonly problem: Problem;

  constructor(problem: Problem) {
    super(problem.message);
    this.name = 'ProblemError';
    this.problem = problem;
  }
}

/** An error 400 that names the field at fault. */
export function badRequest(message: string, param?: string): ProblemError {
  return new ProblemError({ status: 400, message, param });
}
