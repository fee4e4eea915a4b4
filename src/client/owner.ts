// Whether the owner of a hold is alive, for owners that are activities: Temporal is asked about the one that made it. A workflow that
// waits is alive, its old attempt is not.

import { type Client, WorkflowNotFoundError } from '@temporalio/client';

const OWNER = /^activity ([^/]+)\/([^/]+)\/(.+)\/(\d+)$/;
/** Temporal's values for an activity attempt that a worker has: started, and asked to cancel. */
const HELD_STATES: ReadonlySet<unknown> = new Set([2, 3]);

/** Temporal's client would try again for a minute, and hold up every other hold. */
const DESCRIBE_MS = 5_000;

export type OwnerLifeOptions = { readonly heartbeatTimeoutMs: number };

/**
 * Answers how long the owner's evidence of life holds, in milliseconds, 0 when it is dead: the attempt that made the hold must be the
 * pending one, started, with a heartbeat younger than its timeout. While Temporal is away the answer is one heartbeat timeout.
 */
export function createOwnerLife(
  temporal: Client,
  options: OwnerLifeOptions,
): (owner: string) => Promise<number> {
  return async (owner) => {
    const match = OWNER.exec(owner);
    if (match === null) return 0;
    const [, workflowId = '', runId = '', activityId = '', attempt = ''] = match;
    try {
      const { raw } = await temporal.withDeadline(Date.now() + DESCRIBE_MS, () =>
        temporal.workflow.getHandle(workflowId, runId).describe(),
      );
      const pending = raw.pendingActivities?.find((activity) => activity.activityId === activityId);
      if (pending?.attempt !== Number(attempt) || !HELD_STATES.has(pending.state)) return 0;
      const heartbeat = pending.lastHeartbeatTime ?? pending.lastStartedTime;
      const ageMs = Date.now() - Number(heartbeat?.seconds ?? 0) * 1000;
      return Math.max(0, options.heartbeatTimeoutMs - ageMs);
    } catch (error) {
      if (error instanceof WorkflowNotFoundError) return 0;
      return options.heartbeatTimeoutMs;
    }
  };
}
