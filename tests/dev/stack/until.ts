// Waiting for a condition in the tests of the stack. It rethrows the last failure.
import { setTimeout as delay } from 'node:timers/promises';

/** Repeats until the check passes, at most for ten seconds, and answers what it answered. */
export async function until<T>(check: () => T | Promise<T>, timeoutMs = 10_000): Promise<T> {
  const deadline = performance.now() + timeoutMs;
  for (;;) {
    try {
      return await check();
    } catch (error) {
      if (performance.now() > deadline) throw error;
      await delay(25);
    }
  }
}
