// A reporter for the long fault runs: at the end, one line per run with its figures, whether it passed or not.

import type { Reporter, TestModule } from 'vitest/node';

declare module 'vitest' {
  interface TaskMeta {
    figures?: Readonly<Record<string, number | string>>;
  }
}

export class ChaosTable implements Reporter {
  onTestRunEnd(modules: readonly TestModule[]): void {
    const lines = modules.flatMap((module) =>
      [...module.children.allTests()].map((test) => {
        const { state } = test.result();
        const figures = Object.entries(test.meta().figures ?? {}).map(([name, value]) => `${name} ${value}`);
        return { state, name: test.name, figures: figures.join(' · ') };
      }),
    );
    const width = Math.max(0, ...lines.map(({ name }) => name.length));
    const shown = lines.map(
      ({ state, name, figures }) => `${state.padEnd(7)} ${name.padEnd(width)}  ${figures}`,
    );
    process.stdout.write(`\n${shown.join('\n')}\n`);
  }
}
