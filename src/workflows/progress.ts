// What a running task shows of itself: the answer of the query `status`, and the details on its page in Temporal's Web UI. Costs no
// event in its history.

import { setCurrentDetails } from '@temporalio/workflow';
import { toSummary } from '../task/text.ts';
import { addUsageTotals, NO_USAGE_TOTALS, type UsageTotals } from '../task/usage.ts';
import type { TaskStatusReport } from './messages.ts';

export class Progress {
  #report: TaskStatusReport = {
    phase: 'starting',
    currentStep: null,
    waiting: null,
    usage: NO_USAGE_TOTALS,
    costUsd: '0.00',
    model: null,
    pressure: null,
    pendingApproval: null,
  };
  readonly #title: string;

  constructor(title: string) {
    this.#title = toSummary(title);
    this.#show();
  }

  get report(): TaskStatusReport {
    return this.#report;
  }

  update(change: Partial<TaskStatusReport>): void {
    this.#report = { ...this.#report, ...change };
    this.#show();
  }

  /** Figures as of the last outcome. */
  spent(usage: UsageTotals, costUsd: string): void {
    this.update({ usage: addUsageTotals(this.#report.usage, usage), costUsd });
  }

  #show(): void {
    const { phase, currentStep, waiting, usage, costUsd, model } = this.#report;
    const lines = [
      `**${asText(this.#title)}**`,
      '',
      `| phase | step | model | tokens in / out | cost |`,
      `|---|---|---|---|---|`,
      `| ${phase} | ${currentStep ?? '–'} | ${model ?? '–'} | ${usage.inputTokens} / ${usage.outputTokens} | $${costUsd} |`,
    ];
    if (waiting !== null) lines.push('', `Waits for **${asText(waiting.reason)}** until ${waiting.until}.`);
    setCurrentDetails(lines.join('\n'));
  }
}

/** A user's text is no markup. */
function asText(text: string): string {
  return text.replaceAll(/[\\`*_{}[\]<>()#+!|~-]/g, (character) => `\\${character}`);
}
