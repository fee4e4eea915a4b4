// What a running task shows of itself: the answer of the query `status`, and the details on its page in Temporal's Web UI. Costs no
// event in its history.

import { setCurrentDetails } from '@temporalio/workflow';
import type { CallOutcome, Pressure } from '../task/decision.ts';
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

  /** How near the tightest limit is, as far as an outcome tells. */
  pressed(outcome: CallOutcome): void {
    const pressure = pressureIn(outcome);
    if (pressure !== undefined) this.update({ pressure });
  }

  #show(): void {
    const { phase, currentStep, waiting, usage, costUsd, model, pressure, pendingApproval } = this.#report;
    const lines = [
      `**${asText(this.#title)}**`,
      '',
      `| phase | step | model | tokens in / out | cost |`,
      `|---|---|---|---|---|`,
      `| ${phase} | ${currentStep ?? '–'} | ${model ?? '–'} | ${usage.inputTokens} / ${usage.outputTokens} | $${costUsd} |`,
    ];
    if (waiting !== null) lines.push('', `Waits for **${asText(waiting.reason)}** until ${waiting.until}.`);
    if (pressure !== null) lines.push('', `Its tightest limit is under ${pressure} pressure.`);
    if (pendingApproval !== null)
      lines.push(
        '',
        `Asks for approval \`${pendingApproval.approvalId}\` until ${pendingApproval.expiresAt}.`,
      );
    setCurrentDetails(lines.join('\n'));
  }
}

function pressureIn(outcome: CallOutcome): Pressure | undefined {
  switch (outcome.kind) {
    case 'completed':
      return outcome.pressure;
    case 'held':
    case 'budget_wait':
    case 'ask':
    case 'degrade':
      return 'critical';
    case 'refuse':
      return outcome.failure.type === 'BudgetExceeded' ? 'critical' : undefined;
    case 'wait':
    case 'unavailable':
      return undefined;
    default:
      return outcome satisfies never;
  }
}

/** A user's text is no markup. */
function asText(text: string): string {
  return text.replaceAll(/[\\`*_{}[\]<>()#+!|~-]/g, (character) => `\\${character}`);
}
