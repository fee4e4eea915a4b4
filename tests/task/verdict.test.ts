// The provider table of the design, row by row.

import { describe, expect, it } from 'vitest';
import { judge, PROVIDER_FAULT_KINDS, type Verdict, type VerdictContext } from '../../src/task/verdict.ts';

const CONTEXT: VerdictContext = {
  model: 'openai/some',
  failedAttempts: 1,
  attemptsPerCandidate: 3,
  failedAttemptsOfCall: 1,
  attemptsPerCall: 6,
  unhintedWaits: 0,
  remainingMs: Number.POSITIVE_INFINITY,
  candidatesLeft: 0,
  shortHintMs: 5_000,
  hasOtherKey: false,
};

type Fault = Parameters<typeof judge>[0];

const refusal = (type: 'RequestRejected' | 'ContentRefused', reason: string, status?: number): Verdict => ({
  kind: 'refuse',
  failure: { type, reason, model: 'openai/some', ...(status === undefined ? {} : { status }) },
});

const ROWS: [Fault, Verdict][] = [
  [
    { kind: 'bad_request', status: 400 },
    refusal('RequestRejected', 'the provider answered that the request is wrong', 400),
  ],
  [
    { kind: 'content_filter', status: 400 },
    refusal('ContentRefused', 'the provider refused the content', 400),
  ],
  [{ kind: 'content_filter' }, refusal('ContentRefused', 'the provider refused the content')],
  [
    { kind: 'not_found', status: 404 },
    { kind: 'unavailable', reason: 'not_found' },
  ],
  [
    { kind: 'too_long', status: 400 },
    { kind: 'unavailable', reason: 'too_long' },
  ],
  [
    { kind: 'auth', status: 401 },
    { kind: 'unavailable', reason: 'auth' },
  ],
  [
    { kind: 'quota', status: 429 },
    { kind: 'unavailable', reason: 'quota' },
  ],
  [
    { kind: 'rate_limited', status: 429, retryAfterMs: 700 },
    { kind: 'wait', ms: 700 },
  ],
  [
    { kind: 'rate_limited', status: 429 },
    { kind: 'wait', ms: 1_000 },
  ],
  [
    { kind: 'overloaded', status: 529, retryAfterMs: 90_000 },
    { kind: 'wait', ms: 90_000 },
  ],
  [{ kind: 'timeout', status: 408 }, { kind: 'retry' }],
  [{ kind: 'timeout' }, { kind: 'retry' }],
  [{ kind: 'connection' }, { kind: 'retry' }],
  [{ kind: 'cut' }, { kind: 'retry' }],
  [{ kind: 'unknown', status: 500 }, { kind: 'retry' }],
  [{ kind: 'unknown' }, { kind: 'retry' }],
];

describe('judge', () => {
  it.each(ROWS)('answers %o with %o', (fault, verdict) => {
    expect(judge(fault, CONTEXT)).toEqual(verdict);
  });

  it('has a row for every kind of fault but the abort', () => {
    const judged = new Set<string>(ROWS.map(([fault]) => fault.kind));
    expect(PROVIDER_FAULT_KINDS.filter((kind) => !judged.has(kind))).toEqual(['aborted']);
  });

  it.each(['timeout', 'connection', 'cut', 'unknown'] as const)(
    'gives up the model on %s at its cap, and the call at that of the call',
    (kind) => {
      const gone = { kind: 'unavailable', reason: kind };
      const over = {
        kind: 'refuse',
        failure: {
          type: 'NoModelAvailable',
          reason: `6 attempts failed, the last by ${kind}`,
          model: 'openai/some',
        },
      };
      expect(judge({ kind }, { ...CONTEXT, failedAttempts: 2 })).toEqual({ kind: 'retry' });
      expect(judge({ kind }, { ...CONTEXT, failedAttempts: 3 })).toEqual(gone);
      expect(judge({ kind }, { ...CONTEXT, failedAttemptsOfCall: 5 })).toEqual({ kind: 'retry' });
      const left = { ...CONTEXT, candidatesLeft: 1 };
      expect(judge({ kind }, { ...left, failedAttempts: 3, failedAttemptsOfCall: 5 })).toEqual(gone);
      expect(judge({ kind }, { ...left, failedAttemptsOfCall: 6 })).toEqual(over);
      expect(judge({ kind }, { ...left, failedAttempts: 3, failedAttemptsOfCall: 6 })).toEqual(over);
      // With no model left, each one's reason says more.
      expect(judge({ kind }, { ...CONTEXT, failedAttemptsOfCall: 6 })).toEqual(gone);
    },
  );

  it.each(['auth', 'quota', 'not_found', 'too_long'] as const)(
    'ends the call on %s at its cap instead of trying another model',
    (kind) => {
      const left = { ...CONTEXT, candidatesLeft: 1 };
      expect(judge({ kind }, { ...left, failedAttemptsOfCall: 5 })).toEqual({
        kind: 'unavailable',
        reason: kind,
      });
      expect(judge({ kind }, { ...left, failedAttemptsOfCall: 6 })).toMatchObject({
        kind: 'refuse',
        failure: { type: 'NoModelAvailable', reason: `6 attempts failed, the last by ${kind}` },
      });
    },
  );

  it('is not moved by caps where the provider throttles', () => {
    const capped = { ...CONTEXT, failedAttempts: 99, failedAttemptsOfCall: 99 };
    expect(judge({ kind: 'rate_limited', retryAfterMs: 5 }, capped)).toEqual({ kind: 'wait', ms: 5 });
  });

  it('waits longer each time a provider throttles without a hint, at most half a minute', () => {
    const waits = [0, 1, 2, 3, 4, 5, 6, 2_000].map((unhintedWaits) =>
      judge({ kind: 'overloaded' }, { ...CONTEXT, unhintedWaits }),
    );
    expect(waits.map((verdict) => (verdict.kind === 'wait' ? verdict.ms : verdict.kind))).toEqual([
      1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000, 30_000,
    ]);
  });

  it.each<[number | undefined, number, number]>([
    [5_000, 5_000, 5_000],
    [5_001, 5_000, 5_001],
    [undefined, 900, 1_000],
    [10, 0, 10],
    [10, -1, 10],
  ])('refuses a hint of %s ms with %s ms left', (retryAfterMs, remainingMs, shown) => {
    expect(judge({ kind: 'rate_limited', status: 429, retryAfterMs }, { ...CONTEXT, remainingMs })).toEqual({
      kind: 'refuse',
      failure: {
        type: 'RateLimited',
        reason: 'the provider is throttling until after the deadline',
        model: 'openai/some',
        status: 429,
        retryAfterMs: shown,
      },
    });
  });

  it('waits where the hint ends just before the deadline', () => {
    expect(judge({ kind: 'rate_limited', retryAfterMs: 4_999 }, { ...CONTEXT, remainingMs: 5_000 })).toEqual({
      kind: 'wait',
      ms: 4_999,
    });
  });

  it.each(['rate_limited', 'overloaded'] as const)(
    'waits for a hint of %s that is short, and moves on at a longer one where another model is left',
    (kind) => {
      const left = { ...CONTEXT, candidatesLeft: 1 };
      expect(judge({ kind, retryAfterMs: 5_000 }, left)).toEqual({ kind: 'wait', ms: 5_000 });
      const gone = { kind: 'unavailable', reason: kind, retryAfterMs: 5_001 };
      expect(judge({ kind, retryAfterMs: 5_001 }, left)).toEqual(gone);
      expect(judge({ kind, retryAfterMs: 5_001 }, CONTEXT)).toEqual({ kind: 'wait', ms: 5_001 });
      // Without a hint the waits grow: the fourth is 8 s.
      expect(judge({ kind }, { ...left, unhintedWaits: 3 })).toMatchObject({ kind: 'unavailable' });
    },
  );

  it('moves on instead of refusing where a short hint ends after the deadline and another model is left', () => {
    const left = { ...CONTEXT, candidatesLeft: 1, remainingMs: 500 };
    expect(judge({ kind: 'rate_limited', retryAfterMs: 600 }, left)).toEqual({
      kind: 'unavailable',
      reason: 'rate_limited',
      retryAfterMs: 600,
    });
  });

  it.each(['auth', 'quota', 'rate_limited'] as const)(
    'takes the next key on %s where there is one',
    (kind) => {
      expect(judge({ kind, retryAfterMs: 60_000 }, { ...CONTEXT, hasOtherKey: true })).toEqual({
        kind: 'next_key',
      });
    },
  );

  it('takes no other key where the provider itself is at fault', () => {
    const other = { ...CONTEXT, hasOtherKey: true };
    expect(judge({ kind: 'overloaded', retryAfterMs: 7 }, other)).toEqual({ kind: 'wait', ms: 7 });
    expect(judge({ kind: 'unknown', status: 500 }, other)).toEqual({ kind: 'retry' });
  });
});
