import { describe, expect, it } from 'vitest';
import { advance, newProgress } from '../../src/cli/task-progress.ts';
import type { EventType, TaskEvent } from '../../src/task/event.ts';

describe('the text of a call', () => {
  it('is that of the newest attempt', () => {
    const events = [
      told('call_started', 1),
      ...[told('call_delta', 1, 'old'), told('attempt_reset', 1)],
      ...[told('call_started', 2), told('call_delta', 2, 'ne'), told('call_delta', 2, 'w')],
      told('call_completed', 2),
    ];
    expect(textAfter(events)).toBe('new');
  });

  it('is whole where its first piece comes before its beginning is told', () => {
    const events = [told('call_delta', 1, 'te'), told('call_started', 1), told('call_delta', 1, 'xt')];
    expect(textAfter(events)).toBe('text');
  });

  it('begins anew with the first piece of another attempt', () => {
    expect(textAfter([told('call_delta', 1, 'old'), told('call_delta', 2, 'new')])).toBe('new');
    expect(textAfter([told('call_delta', 1, 'old'), told('call_snapshot', 2, 'new')])).toBe('new');
  });

  it('stays where an older attempt is declared void', () => {
    expect(textAfter([told('call_delta', 2, 'new'), told('attempt_reset', 1)])).toBe('new');
  });
});

function told(type: EventType, attempt: number, text?: string): TaskEvent {
  const place = { taskId: 'task', seq: 1, epoch: 1, at: '2030-01-01T00:00:00.000Z' };
  return { ...place, type, callKey: 'call', attempt: `call#0.1.${attempt}.0`, data: { text } };
}

function textAfter(events: readonly TaskEvent[]): string {
  const progress = newProgress('task', '');
  for (const event of events) advance(progress, event);
  return progress.text;
}
