// How somebody raises a running task's own limits. The raise is recorded by an activity, once per key; then a waiting call looks again.

import { CancellationScope, workflowInfo } from '@temporalio/workflow';
import { parseRaise } from '../task/approval.ts';
import type { BudgetNews } from './budget-news.ts';
import { updateRefused } from './failure.ts';
import type { BudgetRaised } from './messages.ts';
import { localFirst } from './proxies.ts';

export class BudgetRaises {
  readonly #tenantId: string;
  readonly #news: BudgetNews;
  #state: 'beginning' | 'open' | 'ending' = 'beginning';
  #made = 0;

  constructor(tenantId: string, news: BudgetNews) {
    this.#tenantId = tenantId;
    this.#news = news;
  }

  /** The task has begun: its limits are there. */
  open(): void {
    this.#state = 'open';
  }

  close(): void {
    this.#state = 'ending';
  }

  /** Validates a raise as it comes in. @throws what refuses the update; the task goes on */
  check(raw: unknown): void {
    const parsed = parseRaise(raw);
    if (parsed.kind === 'invalid') {
      const faults = parsed.faults.map(
        ({ path, expected, got }) => `${path}: expected ${expected}, got ${got}`,
      );
      throw updateRefused('InvalidUpdate', `invalid raise: ${faults.join('; ')}`, parsed.faults);
    }
    if (this.#state === 'beginning')
      throw updateRefused('NotRunning', 'the task has not begun yet: try again in a moment');
    if (this.#state === 'ending') throw updateRefused('NotRunning', 'the task is ending');
  }

  /** Records a raise that `check` let through. */
  async raise(raw: unknown): Promise<BudgetRaised> {
    this.check(raw);
    const parsed = parseRaise(raw);
    if (parsed.kind === 'invalid') throw updateRefused('InvalidUpdate', 'invalid raise', parsed.faults);
    const { workflowId: taskId, runId } = workflowInfo();
    this.#made += 1;
    const changeKey = `raise:${taskId}:${runId}:${this.#made}`;
    const outcome = await CancellationScope.nonCancellable(() =>
      localFirst('raise the budget', (activities) =>
        activities.raiseBudget({ taskId, runId, tenantId: this.#tenantId, changeKey, ...parsed.value }),
      ),
    );
    switch (outcome.kind) {
      case 'raised':
        this.#news.tell();
        return { limits: outcome.limits };
      case 'nothing':
        throw updateRefused(
          'NothingToRaise',
          `the task has no limit in ${outcome.unit} that could be raised`,
        );
      case 'too_much':
        throw updateRefused(
          'NothingToRaise',
          `a limit in ${outcome.unit} would be larger than can be counted`,
        );
      default:
        return outcome satisfies never;
    }
  }
}
