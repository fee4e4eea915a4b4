import { defineConfig } from 'vitest/config';

/** The long fault tests: the same as in the short run, with more kills, printing their figures. */
export default defineConfig({
  test: {
    include: ['tests/faults/**/*.test.ts'],
    globalSetup: ['tests/support/servers.ts'],
    reporters: ['default', './tests/support/closing-line.ts'],
    testTimeout: 1_800_000,
    hookTimeout: 120_000,
    fileParallelism: false,
  },
});
