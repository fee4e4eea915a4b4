// Streamed text on its way to readers: collected for a short time or a size, then published as one event. Readers are worth no
// failed call: what Redis does not take is dropped and counted.

import type { Attempt } from '../stores/ledger.ts';
import { attemptOrder } from '../task/keys.ts';
import type { CallDependencies, CallRequest } from './call.ts';

export type DeltaBatcher = {
  push(text: string): void;
  /** Publishes what is left; resolves when everything is out or was dropped. */
  flush(): Promise<void>;
};

/** Characters kept while Redis is slow; what comes beyond is dropped for readers and counted. The answer itself is kept elsewhere. */
const MAX_WAITING = 1_000_000;

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
  // One batch after the other, so that they arrive in order; meanwhile text collects, up to a bound.
  let sending: Promise<void> | undefined;

  const send = (): Promise<void> => {
    clearTimeout(timer);
    timer = undefined;
    if (sending !== undefined || waiting === '') return sending ?? Promise.resolve();
    const text = waiting;
    waiting = '';
    sending = publish(dependencies, task, {
      callKey: attempt.callKey,
      stepId: attempt.stepId,
      attemptKey: attempt.attemptKey,
      order,
      k,
      text,
    }).finally(() => {
      k += 1;
      sending = undefined;
    });
    return sending;
  };
  return {
    push(text) {
      if (waiting.length + text.length > MAX_WAITING) return dependencies.meter.deltaDropped('redis');
      waiting += text;
      if (waiting.length >= dependencies.settings.deltaBytes) void send();
      else timer ??= setTimeout(() => void send(), dependencies.settings.deltaIntervalMs);
    },
    async flush() {
      await send();
      await send();
    },
  };
}

async function publish(
  dependencies: Pick<CallDependencies, 'events' | 'meter' | 'log'>,
  task: NonNullable<CallRequest['task']>,
  delta: Parameters<CallDependencies['events']['publishDelta']>[1],
): Promise<void> {
  try {
    if (!(await dependencies.events.publishDelta(task, delta))) dependencies.meter.deltaDropped('superseded');
  } catch (error) {
    dependencies.meter.deltaDropped('redis');
    dependencies.log.debug('streamed text not published', { attempt: delta.attemptKey, error });
  }
}
