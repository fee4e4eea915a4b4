// What a cancellation does to a request that is under way, by the task's policy. It only decides when the socket is closed and when
// readers hear no more; what was taken until then is settled elsewhere, whatever the policy.

import type { CallContext } from './call.ts';

export type Cancellation = {
  /** Closes the socket. */
  readonly socket: AbortSignal;
  /** Who ended the call; undefined while it goes on as if nobody had. */
  endedBy(): 'cancelled' | 'handover' | undefined;
  /** Call it once nothing more is read. */
  stop(): void;
};

/**
 * Follows the context's signal: `cancel` closes the socket at once; `drain` ends the call for its readers and closes the socket when
 * the cap is reached; `detach` changes nothing. A handover always closes it, since somebody else goes on with the call.
 * @param onEnd called once when the call has ended for its readers
 */
export function followCancellation(
  context: Pick<CallContext, 'signal' | 'abortReason' | 'abort' | 'letGo'>,
  drainCapMs: number,
  onEnd: () => void,
): Cancellation {
  const socket = new AbortController();
  let endedBy: 'cancelled' | 'handover' | undefined;
  let cap: NodeJS.Timeout | undefined;
  const end = (by: 'cancelled' | 'handover') => {
    if (endedBy !== undefined) return;
    endedBy = by;
    onEnd();
  };
  // Also for a call that was to outlive its cancellation: nobody will go on with it, so that it ends as cancelled.
  const onLetGo = () => {
    end('cancelled');
    socket.abort(context.letGo.reason);
  };
  const onAbort = () => {
    const by = context.abortReason();
    const policy = by === 'handover' ? 'cancel' : context.abort;
    if (policy !== 'detach') end(by);
    if (policy === 'cancel') return socket.abort(context.signal.reason);
    if (policy === 'drain')
      cap = setTimeout(() => socket.abort(new Error(`not drained within ${drainCapMs} ms`)), drainCapMs);
    if (context.letGo.aborted) onLetGo();
    else context.letGo.addEventListener('abort', onLetGo, { once: true });
  };
  if (context.signal.aborted) onAbort();
  else context.signal.addEventListener('abort', onAbort, { once: true });
  return {
    socket: socket.signal,
    endedBy: () => endedBy,
    stop() {
      clearTimeout(cap);
      context.signal.removeEventListener('abort', onAbort);
      context.letGo.removeEventListener('abort', onLetGo);
    },
  };
}
