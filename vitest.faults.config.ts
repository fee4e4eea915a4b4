import { defineConfig } from 'vitest/config';
import { ChaosTable } from './tests/support/chaos-table.ts';

/** The long fault runs; each prints its figures at the end. WEIR_FAULT_SEED repeats one, WEIR_FAULT_KILLS makes it shorter or longer. */
export default defineConfig({
  test: {
    include: ['tests/faults/**/*.test.ts'],
    globalSetup: ['tests/support/servers.ts'],
    reporters: ['default', new ChaosTable(), './tests/support/closing-line.ts'],
    testTimeout: 3_600_000,
    hookTimeout: 120_000,
    fileParallelism: false,
  },
});
