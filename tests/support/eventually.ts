// Waits for a condition instead of a time.

/** Repeats `check` until it passes; after `forMs` the last failure is thrown as it was. */
export async function eventually<Result>(
  check: () => Promise<Result> | Result,
  forMs = 15_000,
): Promise<Result> {
  const giveUpAt = performance.now() + forMs;
  for (;;) {
    try {
      return await check();
    } catch (error) {
      if (performance.now() > giveUpAt) throw error;
      await new Promise((resolve) => setTimeout(resolve, 25));
    }
  }
}
