// The set-up step that only tests need: nginx and Chromium, through which event streams are read. Where they cannot be had it says so
// once, and the tests that read through them fail with the same words; all others run.

import type { TestProject } from 'vitest/node';
import { type Readers, setUpReaders } from '../../scripts/setup-readers.mjs';

declare module 'vitest' {
  interface ProvidedContext {
    /** `missing`: why there are none, and the remedy. */
    readers: Readers | { readonly missing: string };
  }
}

export async function setup(project: TestProject): Promise<void> {
  try {
    const say = (line: string) => void process.stdout.write(`${line}\n`);
    project.provide('readers', await setUpReaders({ env: process.env, say }));
  } catch (error) {
    if (!(error instanceof Error) || error.name !== 'SetupError') throw error;
    project.provide('readers', { missing: error.message });
    process.stderr.write(`\n${error.message}\n\n`);
  }
}
