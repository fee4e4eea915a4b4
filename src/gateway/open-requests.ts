// The requests that are being answered now: a gateway that stops lets them finish. Event streams are none of these, since their readers
// go on elsewhere (open-streams.ts).

import type { ServerResponse } from 'node:http';
import { finished } from 'node:stream';

export type OpenRequests = ReturnType<typeof createOpenRequests>;

export function createOpenRequests() {
  const open = new Set<ServerResponse>();
  let onEmpty = () => {};
  const leave = (response: ServerResponse) => {
    open.delete(response);
    if (open.size === 0) onEmpty();
  };
  return {
    /** Counted until its answer is out, or its client gone. */
    begin(response: ServerResponse): void {
      open.add(response);
      finished(response, () => leave(response));
    },

    /** It turned out to be a stream. */
    leave,

    /** Resolves when all are answered, at the latest after `graceMs`; says how many are left then. */
    async answered(graceMs: number): Promise<number> {
      let timer: NodeJS.Timeout | undefined;
      await new Promise<void>((resolve) => {
        onEmpty = resolve;
        timer = setTimeout(resolve, graceMs);
        if (open.size === 0) resolve();
      });
      clearTimeout(timer);
      return open.size;
    },
  };
}
