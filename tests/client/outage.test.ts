import { status } from '@grpc/grpc-js';
import { describe, expect, it } from 'vitest';
import { isTemporalFailure, isTemporalOutage } from '../../src/client/outage.ts';

/** As the client wraps what gRPC threw. */
function wrapped(code: number): Error {
  return new Error('the client failed', { cause: Object.assign(new Error('gRPC'), { code }) });
}

describe('an error of the Temporal client', () => {
  it.each([
    // code, cannot be served now, speaks against the server
    ['UNAVAILABLE', true, true],
    ['DEADLINE_EXCEEDED', true, true],
    ['UNKNOWN', true, true],
    ['RESOURCE_EXHAUSTED', true, false],
    ['CANCELLED', true, false],
    ['NOT_FOUND', false, false],
    ['INVALID_ARGUMENT', false, false],
    ['PERMISSION_DENIED', false, false],
  ] as const)('of the code %s: an outage %s, a failure of the server %s', (code, outage, failure) => {
    const error = wrapped(status[code]);
    expect(isTemporalOutage(error)).toBe(outage);
    expect(isTemporalFailure(error)).toBe(failure);
  });

  it.each([[new Error('ours')], ['a text'], [undefined]])(
    'without a code (%s) says nothing of the server',
    (error) => {
      expect(isTemporalOutage(error)).toBe(false);
      expect(isTemporalFailure(error)).toBe(false);
    },
  );
});
