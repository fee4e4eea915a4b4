// What ends a wait for a limit early: somebody changed a budget. Counted, so that a change during a visit is not missed by the wait
// that follows it.

import { condition } from '@temporalio/workflow';
import { toSummary } from '../task/text.ts';

export class BudgetNews {
  #count = 0;

  get count(): number {
    return this.#count;
  }

  tell(): void {
    this.#count += 1;
  }

  /** Waits in a timer named after the limit, or until a budget changes after `seen`. Milliseconds. */
  async wait(ms: number, { limit, seen }: { readonly limit: string; readonly seen: number }): Promise<void> {
    // A timer that is over before it starts would only cost history.
    if (ms <= 0 || this.#count !== seen) return;
    await condition(() => this.#count !== seen, Math.ceil(ms), { summary: toSummary(`waits for ${limit}`) });
  }
}
