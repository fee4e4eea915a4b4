// Streamed text on its way to readers: collected for a short time or a size, then published as one event. Readers are worth no
// failed call: what Redis does not take is dropped and counted.

import type { Attempt } from '../stores/ledger.ts';
import { attemptOrder } from '../task/keys.ts';
import { utf8Bytes } from '../task/text.ts';
import type { CallDependencies, CallRequest } from './call.ts';

export type DeltaBatcher = {
  push(text: string): void;
  /** Publishes what is left; resolves when everything is out or was dropped. */
  flush(): Promise<void>;
};

export function createDeltaBatcher(
  dependencies: Pick<CallDependencies, 'events' | 'settings' | 'meter' | 'log'>,
  request: CallRequest,
  attempt: Attempt,
  tries: number,
): DeltaBatcher {
  const { task } = request;
  if (task === undefined) return { push: () => undefined, flush: () => Promise.resolve() };
  const order = attemptOrder({ ...request.number, try: tries });
  let waiting = '';
  let k = 0;
  let timer: NodeJS.Timeout | undefined;
  // One batch after the other, so that they arrive in order.
  let sending: Promise<void> = Promise.resolve();

  const send = () => {
    clearTimeout(timer);
    timer = undefined;
    if (waiting === '') return;
    const delta = {
      callKey: attempt.callKey,
      stepId: attempt.stepId,
      attemptKey: attempt.attemptKey,
      order,
      k,
      text: waiting,
    };
    waiting = '';
    k += 1;
    sending = sending
      .then(() => dependencies.events.publishDelta(task, delta))
      .then((isTaken) => {
        if (!isTaken) dependencies.meter.deltaDropped('superseded');
      })
      .catch((error: unknown) => {
        dependencies.meter.deltaDropped('redis');
        dependencies.log.debug('streamed text not published', { attempt: attempt.attemptKey, error });
      });
  };
  return {
    push(text) {
      waiting += text;
      if (utf8Bytes(waiting) >= dependencies.settings.deltaBytes) send();
      else timer ??= setTimeout(send, dependencies.settings.deltaIntervalMs);
    },
    flush() {
      send();
      return sending;
    },
  };
}
