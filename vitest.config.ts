import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    include: ['tests/**/*.test.ts'],
    exclude: ['tests/faults/**'],
    globalSetup: ['tests/support/readers.ts', 'tests/support/servers.ts'],
    reporters: ['default', './tests/support/closing-line.ts'],
    testTimeout: 30_000,
    hookTimeout: 60_000,
    // Two cores share the servers with the tests.
    maxWorkers: 2,
    // A fresh process per file costs a second of each; no test leaves state in a module.
    isolate: false,
  },
});
