// A reader of one task's stream that keeps what a page would show of it, and knows in the end whether that was everything, once, and in
// order.

import type { TaskEvent } from '../../src/task/event.ts';
import type { Faults } from './event-audit.ts';
import { nameOf } from './event-observer.ts';
import type { TestStores } from './stores.ts';

/** What a task has told when it is over. */
export type WholeStory = {
  readonly milestones: readonly string[];
  /** By call: the answer that it ended with. */
  readonly answers: ReadonlyMap<string, string>;
};

const RECENT = 30;

type Shown = { readonly attempt: string; text: string };

export class EventReader {
  readonly #faults: Faults = [];
  #milestones: string[] = [];
  #texts = new Map<string, Shown>();
  /** Texts as they were when their call was said to be complete. */
  #completed = new Map<string, string>();
  #last = { epoch: 0, seq: 0 };
  /** The last that it was told, deltas left out: what a fault is understood by. */
  #recent: string[] = [];
  #snapshots = 0;
  #resets = 0;
  isOver = false;

  get snapshots(): number {
    return this.#snapshots;
  }

  get resets(): number {
    return this.#resets;
  }

  take(event: TaskEvent): void {
    this.#checkOrder(event);
    const { callKey = '', attempt = '' } = event;
    const text = String(event.data?.['text'] ?? '');
    if (event.type === 'reset') this.#forget();
    else if (event.type === 'call_delta') this.#append(callKey, attempt, text);
    else if (event.type === 'call_snapshot') {
      this.#snapshots += 1;
      this.#texts.set(callKey, { attempt, text });
    } else this.#milestone(event);
  }

  /** What it was shown that is not the whole story, or not the story. */
  faults(story: WholeStory): Faults {
    const faults = [...this.#faults];
    if (!this.isOver) faults.push('it was told no end');
    const at = story.milestones.findIndex((name, index) => name !== this.#milestones[index]);
    if (at !== -1)
      faults.push(
        `milestone ${at + 1} is ${this.#milestones[at]}, not ${story.milestones[at]}; at last ${this.#recent.join(', ')}`,
      );
    else if (this.#milestones.length !== story.milestones.length)
      faults.push(`${this.#milestones.length - story.milestones.length} milestones too many`);
    for (const [callKey, answer] of story.answers) {
      const [then, now] = [this.#completed.get(callKey), this.#texts.get(callKey)?.text];
      if (then !== answer) faults.push(`${callKey} was complete with ${difference(then, answer)}`);
      else if (now !== answer) faults.push(`${callKey} ends with ${difference(now, answer)}`);
    }
    return faults;
  }

  #checkOrder(event: TaskEvent): void {
    const { type, epoch, seq } = event;
    const last = this.#last;
    const isBehind = epoch < last.epoch || (epoch === last.epoch && seq < last.seq);
    // A snapshot carries the number of what it stands for; of several only the last moves on.
    const isAgain = epoch === last.epoch && seq === last.seq && type !== 'call_snapshot';
    const name = `${nameOf(event)} ${epoch}-${seq}`;
    if (type !== 'reset' && (isBehind || isAgain))
      this.#faults.push(`${name} came after ${last.epoch}-${last.seq}; before it ${this.#recent.join(', ')}`);
    this.#last = { epoch, seq };
    if (type !== 'call_delta') this.#recent = [...this.#recent, name].slice(-RECENT);
  }

  #forget(): void {
    this.#resets += 1;
    this.#milestones = [];
    this.#texts.clear();
    this.#completed.clear();
  }

  #append(callKey: string, attempt: string, text: string): void {
    const shown = this.#texts.get(callKey);
    if (shown?.attempt === attempt) shown.text += text;
    else this.#texts.set(callKey, { attempt, text });
  }

  #milestone(event: TaskEvent): void {
    const { type, callKey = '', attempt } = event;
    this.#milestones.push(nameOf(event));
    if (type === 'attempt_reset' && this.#texts.get(callKey)?.attempt === attempt)
      this.#texts.delete(callKey);
    if (type === 'call_completed') this.#completed.set(callKey, this.#texts.get(callKey)?.text ?? '');
    if (type === 'stream_end') this.isOver = true;
  }
}

function difference(got: string | undefined, answer: string): string {
  if (got === undefined || got === '') return 'no text';
  let at = 0;
  while (got[at] === answer[at] && at < got.length) at += 1;
  return `${got.length} characters of ${answer.length}, wrong from ${at}: ${JSON.stringify(got.slice(at, at + 60))}`;
}

/** The stories of tasks that are over, as Postgres has them. */
export async function readStories(
  { postgres }: TestStores,
  taskIds: readonly string[],
): Promise<ReadonlyMap<string, WholeStory>> {
  const { rows: events } = await postgres.query<{ task_id: string; name: string[] }>(
    `select task_id, array_agg(concat_ws(' ', type, coalesce(body->>'stepId', ''), coalesce(body->>'attempt', '')) order by seq) as name
     from events where task_id = any($1) and seq is not null group by task_id`,
    [taskIds],
  );
  const { rows: answers } = await postgres.query<{ task_id: string; call_key: string; text: string }>(
    'select task_id, call_key, text from call_results where task_id = any($1)',
    [taskIds],
  );
  return new Map(
    events.map(({ task_id: taskId, name }) => [
      taskId,
      {
        milestones: name,
        answers: new Map(
          answers.filter((one) => one.task_id === taskId).map((one) => [one.call_key, one.text]),
        ),
      },
    ]),
  );
}
