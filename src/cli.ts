#!/usr/bin/env node
// The command line: which commands there are and what they may be told. Each command's work is in cli/; nobody imports this file.

import { Command, CommanderError, InvalidArgumentError } from 'commander';
import { DEFAULT_STATE_DIR } from './cli/addresses.ts';
import { describeError } from './cli/fault.ts';
import { tell } from './cli/print.ts';
import { runBundle, runDevCommand, runMigrate, runProcess } from './cli/processes.ts';
import { readCliEnvironment } from './config.ts';

const environment = readCliEnvironment();

function createProgram(): Command {
  const program = new Command('weir')
    .description('Durable LLM tasks with budgets, rate limits, an exact ledger and resumable streams')
    .exitOverride()
    .showHelpAfterError('(weir --help lists all commands)');
  addProcessCommands(program);
  return program;
}

function addProcessCommands(program: Command): void {
  program
    .command('dev')
    .description('run the embedded stack until Ctrl-C')
    .option('--workers <n>', 'worker processes', wholeNumber, 1)
    .option('--state-dir <folder>', 'where it keeps data, logs and stack.json (WEIR_STATE_DIR)')
    .action(async (options: { workers: number; stateDir?: string }) => {
      const stateDir = options.stateDir ?? environment.variables['WEIR_STATE_DIR'] ?? DEFAULT_STATE_DIR;
      process.exitCode = await runDevCommand({ stateDir, workers: options.workers });
    });
  for (const name of ['worker', 'gateway'] as const)
    program
      .command(name)
      .description(`run a ${name}; it joins a running stack where the environment names no servers`)
      .action(async () => {
        process.exitCode = await runProcess(name, environment);
      });
  program.command('migrate').description('bring the schema in DATABASE_URL up to date').action(runMigrate);
  program
    .command('bundle')
    .description('write the workflows as one file, for WEIR_WORKFLOW_BUNDLE')
    .requiredOption('--out <file>')
    .action(({ out }: { out: string }) => runBundle(out));
}

function wholeNumber(text: string): number {
  if (!/^\d{1,6}$/.test(text)) throw new InvalidArgumentError('It must be a whole number.');
  return Number(text);
}

createProgram()
  .parseAsync()
  .catch((error: unknown) => {
    if (error instanceof CommanderError) {
      process.exitCode = error.exitCode;
      return;
    }
    tell(`weir: ${describeError(error)}`);
    process.exitCode = 1;
  });
