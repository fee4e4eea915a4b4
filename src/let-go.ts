// Tells calls that outlive their cancellation (drained, detached) that their worker can wait no longer. Temporal's SDK tells an activity
// one cancellation and nothing after it: not even that the worker stops, which would then wait for the whole call.

/** The part of a worker that says how far it is. */
type Stoppable = { getState(): string };

const LOOK_EVERY_MS = 250;
const BEFORE_STOPPING: ReadonlySet<string> = new Set(['INITIALIZED', 'RUNNING']);

/** Aborts the controller when the grace time of a stopping worker is over. Keeps no process alive; stop it when the workers are done. */
export function letGoAfterGrace(
  workers: readonly Stoppable[],
  graceMs: number,
  letGo: AbortController,
): { stop(): void } {
  let grace: NodeJS.Timeout | undefined;
  const look = setInterval(() => {
    if (workers.every((worker) => BEFORE_STOPPING.has(worker.getState()))) return;
    clearInterval(look);
    grace = setTimeout(() => letGo.abort(new Error('the worker stops')), graceMs).unref();
  }, LOOK_EVERY_MS).unref();
  return {
    stop() {
      clearInterval(look);
      clearTimeout(grace);
    },
  };
}
