// Where snapshots belong: calls in a row, in parallel, given up, finished across epochs.

import { expect, test } from 'vitest';
import { brokenCalls, findLostTexts } from '../../src/gateway/lost-text.ts';
import type { EventType, TaskEvent } from '../../src/task/event.ts';

/** `seq type call.attempt [text]`, epoch 1 unless told by `@`. */
function events(...lines: string[]): TaskEvent[] {
  return lines.map((line) => {
    const [, seq = '', epoch = '1', type = '', call, text] =
      /^(\d+)(?:@(\d+))? (\S+)(?: (\S+))?(?: (.*))?$/.exec(line) ?? [];
    const [callKey = '', attempt = ''] = call?.split('.') ?? [];
    return {
      taskId: 't',
      seq: Number(seq),
      epoch: Number(epoch),
      type: type as EventType, // the lines below are typed by hand
      at: '2026-01-01T00:00:00.000Z',
      ...(call === undefined ? {} : { callKey, attempt: `${callKey}.${attempt}`, stepId: `step-${callKey}` }),
      ...(text === undefined ? {} : { data: { text } }),
    };
  });
}

const places = (known: TaskEvent[], from = 0, epoch = 1, upTo = known.at(-1)?.seq ?? 0) =>
  findLostTexts(known, { from, upTo, epoch }).map(({ attempt, since, upTo, following }) =>
    `${attempt} ${since}-${upTo} ${following}`.trim(),
  );

test('nothing is lost where no number is missing', () => {
  expect(places(events('1 task_started', '2 call_started a.1', '3 call_delta a.1 x'))).toEqual([]);
});

test('a snapshot stands for the last missing numbers before what the ring still has of the call', () => {
  const known = events(
    '1 call_started a.1',
    '5 budget_threshold',
    '9 call_delta a.1 x',
    '10 call_delta a.1 y',
  );
  expect(places(known)).toEqual(['a.1 5-8 xy']);
  expect(places(known, 6)).toEqual(['a.1 6-8 xy']);
  expect(places(known, 8)).toEqual([]);
});

test('a call that was complete before the place is not told again', () => {
  const known = events(
    '1 call_started a.1',
    '5 call_completed a.1',
    '6 call_started b.1',
    '9 call_completed b.1',
  );
  expect(places(known)).toEqual(['a.1 1-4', 'b.1 6-8']);
  expect(places(known, 5)).toEqual(['b.1 6-8']);
});

test('calls in parallel that lost text in one place each get their snapshot there', () => {
  const known = events(
    '1 call_started a.1',
    '2 call_started b.1',
    '9 call_delta a.1 x',
    '10 call_delta b.1 y',
  );
  expect(places(known)).toEqual(['a.1 2-8 x', 'b.1 2-8 y']);
});

test('an attempt that was reset or followed by another one gets none', () => {
  const known = events(
    '1 call_started a.1',
    '4 attempt_reset a.1',
    '5 call_started a.2',
    '8 call_started a.3',
    '11 call_completed a.3',
  );
  expect(places(known)).toEqual(['a.3 8-10']);
});

test('a call whose step has ended takes no later numbers', () => {
  const known = events('1 call_started a.1', '4 step_failed a.1', '5 call_started b.1', '9 call_delta b.1 x');
  expect(places(known)).toEqual(['a.1 1-3', 'b.1 5-8 x']);
});

test('deltas that are missing in the midst of the ring, and behind all that is known, are told by the last gap', () => {
  const known = events(
    '1 call_started a.1',
    '2 call_delta a.1 x',
    '5 call_delta a.1 y',
    '6 budget_threshold',
  );
  expect(places(known)).toEqual(['a.1 2-4 y']);
  expect(places(known, 0, 1, 9)).toEqual(['a.1 6-9']);
  expect(places(known, 9, 1, 9)).toEqual([]);
});

test('a complete call whose pieces are fewer than its text is told whole', () => {
  const complete = (...lines: string[]) =>
    events('1 call_started a.1', ...lines).map((event) =>
      event.type === 'call_completed' ? { ...event, data: { textBytes: 3 } } : event,
    );
  expect(places(complete('2 call_delta a.1 ab', '3 call_completed a.1'))).toEqual(['a.1 2-2']);
  expect(places(complete('2 call_delta a.1 abc', '3 call_completed a.1'))).toEqual([]);
  expect(places(complete('2 call_completed a.1'))).toEqual(['a.1 1-1']);
  expect(places(complete('2 call_completed a.1'), 2)).toEqual([]);
});

test('an answer that was streamed across epochs is told whole before it is complete', () => {
  const known = events('1@1 call_started a.1', '2@2 call_delta a.1 tail', '3@2 call_completed a.1');
  expect(places(known, 0, 2)).toEqual(['a.1 2-2']);
  expect(places(known, 3, 2)).toEqual([]);
  expect(brokenCalls(known, 2)).toEqual([]);
  expect(brokenCalls(known.slice(0, 2), 2)).toEqual(['a']);
  expect(brokenCalls(known.slice(0, 2), 1)).toEqual([]);
});
