// Which commands there are and what they may be told. Each command's work is in a file of its own, loaded when it is asked for.

import { Argument, Command, CommanderError, InvalidArgumentError } from 'commander';
import { EXCEEDED_POLICIES } from '../task/budget.ts';
import { ABORT_POLICIES, PRIORITIES, REASONING_EFFORTS, TIERS } from '../task/input.ts';
import { type AddressFlags, DEFAULT_STATE_DIR } from './addresses.ts';
import { type ApproveOptions, runApprove } from './approve.ts';
import { BUDGET_ACTIONS, type BudgetAction, type BudgetOptions, runBudget } from './budget.ts';
import { type EraseOptions, runErase } from './erase.ts';
import { CliError, describeError } from './fault.ts';
import { type LimitsOptions, runLimits } from './limits.ts';
import { tell } from './print.ts';
import { runBundle, runDevCommand, runMigrate, runProcess } from './processes.ts';
import { type RaiseOptions, runRaise } from './raise.ts';
import { runSubmit, type SubmitOptions } from './submit.ts';
import { runTail, type TailOptions } from './tail.ts';
import { DEFAULT_USER } from './task-inputs.ts';
import { runCancel, runTasks, type TasksOptions } from './tasks.ts';
import { runUsage, type UsageOptions } from './usage.ts';

/** Runs what the arguments say; the exit code of the process is set, and nothing is thrown. */
export async function runCommandLine(): Promise<void> {
  try {
    await createProgram().parseAsync();
  } catch (error) {
    // What commander throws it has said already.
    if (!(error instanceof CommanderError)) tell(`weir: ${describeError(error)}`);
    process.exitCode = error instanceof CommanderError ? error.exitCode : 1;
  }
}

function createProgram(): Command {
  const program = new Command('weir')
    .description('Durable LLM tasks with budgets, rate limits, an exact ledger and resumable streams')
    .exitOverride()
    .showHelpAfterError('(weir --help lists all commands)');
  addTaskCommands(program);
  addApprovalCommands(program);
  addReportCommands(program);
  addBudgetCommand(program);
  addReplayCommand(program);
  addProcessCommands(program);
  return program;
}

function withAddresses(command: Command): Command {
  return command
    .option('--url <url>', 'the gateway (WEIR_URL)')
    .option('--api-key <key>', 'its key (WEIR_API_KEY)')
    .option('--temporal <host:port>', 'Temporal (TEMPORAL_ADDRESS)');
}

function addTaskCommands(program: Command): void {
  withAddresses(program.command('submit'))
    .description('submit tasks and watch them')
    .argument('[query]', 'what the task is to answer')
    .option('--file <tasks.jsonl>', 'one JSON object a line; - reads standard input')
    .option('--user <id>', `who pays (for a query: ${DEFAULT_USER})`)
    .option('--tenant <id>')
    .option('--session <id>')
    .option('--tier <tier>', TIERS.join(', '))
    .option('--model <provider/model>')
    .option('--max-output-tokens <n>')
    .option('--reasoning-effort <effort>', `where the model reasons: ${REASONING_EFFORTS.join(', ')}`)
    .option('--budget-usd <amount>', 'the most the task may cost, such as 0.05')
    .option('--on-exceeded <policy>', `when a budget has no room: ${EXCEEDED_POLICIES.join(', ')}`)
    .option('--abort <policy>', `when it is cancelled: ${ABORT_POLICIES.join(', ')}`)
    .option('--priority <priority>', PRIORITIES.join(', '))
    .option('--deadline <time>', 'ISO 8601 with a zone')
    .option('--id <task id>')
    .option('--json', 'nothing but the tasks as they ended, one JSON object a line')
    .option('--no-wait', 'print the ids and leave')
    .action(async (query: string | undefined, options: SubmitOptions) => {
      process.exitCode = await runSubmit(query, options, await readEnvironment());
    });
  withAddresses(program.command('tail'))
    .description("stream a task's answer; goes on by itself when the connection is lost")
    .argument('<taskId>')
    .option('--after <position>', 'only events after this one, such as 1-42')
    .option('--json', 'the events as they are, one JSON object a line')
    .action(async (taskId: string, options: TailOptions) => {
      process.exitCode = await runTail(taskId, options, await readEnvironment());
    });
  withAddresses(program.command('cancel'))
    .description('ask a task to stop')
    .argument('<taskId>')
    .action(async (taskId: string, options: AddressFlags) =>
      runCancel(taskId, options, await readEnvironment()),
    );
}

function addApprovalCommands(program: Command): void {
  withAddresses(program.command('approve'))
    .description('decide about a task that asks to pass a budget; without an id, list those that wait')
    .argument('[approvalId]')
    .option('--reject', 'the task ends without an answer')
    .option('--raise-usd <amount>', 'raise the limit that bound it, for this task alone')
    .option('--comment <text>', 'for the record, and for the task that is rejected')
    .option('--by <name>', 'for the record (default: who is logged in)')
    .option('--json')
    .action(async (approvalId: string | undefined, options: ApproveOptions) =>
      runApprove(approvalId, options, await readEnvironment()),
    );
  withAddresses(program.command('raise'))
    .description("raise a running task's own limits; a call that waits for them goes on")
    .argument('<taskId>')
    .option('--usd <amount>', 'by so many USD, such as 0.50')
    .option('--tokens <n>', 'by so many tokens')
    .option('--by <name>', 'for the record (default: who is logged in)')
    .option('--json')
    .action(async (taskId: string, options: RaiseOptions) =>
      runRaise(taskId, options, await readEnvironment()),
    );
}

function addReportCommands(program: Command): void {
  withAddresses(program.command('tasks'))
    .description('list tasks, newest first')
    .option('--user <id>')
    .option('--session <id>')
    .option('--status <status>')
    .option('--limit <n>', 'at most this many', positive, 20)
    .option('--json', 'one JSON object a line')
    .action(async (options: TasksOptions) => runTasks(options, await readEnvironment()));
  const usage = withAddresses(program.command('usage'))
    .description('sums of the ledger; with --rerate, bring it to the present price list')
    .option(
      '--group <names>',
      'tenant, user, session, task, model, provider, day; several with commas',
      'model',
    )
    .option('--csv')
    .option('--json')
    .option('--rerate', 'adjust what calls cost, from --from to --to, to the present prices')
    .option('--dry-run', 'rerate: tell what would be adjusted');
  for (const name of ['tenant', 'user', 'session', 'task', 'model', 'provider'])
    usage.option(`--${name} <id>`, 'only this one');
  usage
    .option('--day <date>', 'only this one (UTC), such as 2026-01-31')
    .option('--from <time>', 'ISO 8601, included')
    .option('--to <time>', 'ISO 8601, excluded')
    .option('--limit <n>', 'at most this many groups', positive)
    .action(async (options: UsageOptions) => runUsage(options, await readEnvironment()));
  withAddresses(program.command('limits'))
    .description('rate limits: configured, learnt from providers, in force, left')
    .option('--tenant <id>', 'whose tiers and plan (default: default)')
    .option('--breakers', 'circuit breakers instead')
    .option('--json')
    .action(async (options: LimitsOptions) => runLimits(options, await readEnvironment()));
  withAddresses(program.command('erase'))
    .description('erase prompts and answers for good; what they cost stays in the ledger')
    .option('--user <id>', 'of this user')
    .option('--tenant <id>', 'of this tenant; without --user of all its users')
    .option('--yes', 'really')
    .option('--json')
    .action(async (options: EraseOptions) => {
      process.exitCode = await runErase(options, await readEnvironment());
    });
}

function addBudgetCommand(program: Command): void {
  withAddresses(program.command('budget'))
    .description('limits of tenants, users, sessions and tasks')
    .addArgument(new Argument('<action>').choices(BUDGET_ACTIONS))
    .argument('[scope]', 'tenant, user, session or task; list takes none')
    .argument('[id]')
    .option('--usd <amount>', 'set, add: at most this many USD, such as 5.00')
    .option('--tokens <n>', 'set, add: at most this many tokens')
    .option('--window <window>', 'set, add: total (default), hour, day, week, month')
    .option('--zone <zone>', 'set, add: where the window begins, such as Europe/Berlin')
    .option('--soft', 'set, add: warn and slow down instead of refusing')
    .option('--warn-at <share>', 'set, add: 0 to 1, such as 0.9')
    .option('--scope <scope>', 'list: only scopes of this kind')
    .option('--limit <n>', 'list: at most this many scopes', positive)
    .option('--tenant <id>', 'of this tenant (for admins)')
    .option('--json')
    .addHelpText(
      'after',
      '\nset replaces all limits of the scope, add keeps the others, remove goes back to the configured ones.',
    )
    .action(
      async (
        action: BudgetAction,
        scope: string | undefined,
        id: string | undefined,
        options: BudgetOptions,
      ) => runBudget(action, { scope, id }, options, await readEnvironment()),
    );
}

function addReplayCommand(program: Command): void {
  withAddresses(program.command('replay'))
    .description('run saved histories against this code, or save one')
    .option('--dir <folder>', 'replay every *.json in it')
    .option('--save <task id>', "save this task's history")
    .option('--out <file>', 'save: where to')
    .action(async (options: ReplayOptions) => {
      const { dir, save, out } = options;
      // The worker's library takes a second to load; no other command needs it.
      const { runReplay, saveHistory } = await import('./replay.ts');
      if (dir !== undefined && save === undefined && out === undefined)
        process.exitCode = await runReplay(dir);
      else if (dir === undefined && save !== undefined && out !== undefined)
        await saveHistory(save, out, options, await readEnvironment());
      else throw new CliError('give either --dir, or --save and --out');
    });
}

type ReplayOptions = {
  readonly dir?: string;
  readonly save?: string;
  readonly out?: string;
  readonly temporal?: string;
};

function addProcessCommands(program: Command): void {
  program
    .command('dev')
    .description('run the embedded stack until Ctrl-C')
    .option('--workers <n>', 'worker processes', positive, 1)
    .option('--state-dir <folder>', 'where it keeps data, logs and stack.json (WEIR_STATE_DIR)')
    .action(async (options: { workers: number; stateDir?: string }) => {
      const { variables } = await readEnvironment();
      const stateDir = options.stateDir ?? variables['WEIR_STATE_DIR'] ?? DEFAULT_STATE_DIR;
      process.exitCode = await runDevCommand({ stateDir, workers: options.workers });
    });
  for (const name of ['worker', 'gateway'] as const)
    program
      .command(name)
      .description(`run a ${name}; it joins a running stack where the environment names no servers`)
      .action(async () => {
        process.exitCode = await runProcess(name, await readEnvironment());
      });
  program
    .command('migrate')
    .description('bring the schema in DATABASE_URL up to date')
    .action(() => runMigrate());
  program
    .command('bundle')
    .description('write the workflows as one file, for WEIR_WORKFLOW_BUNDLE')
    .requiredOption('--out <file>')
    .action(({ out }: { out: string }) => runBundle(out));
}

function positive(text: string): number {
  if (!/^[1-9]\d{0,5}$/.test(text))
    throw new InvalidArgumentError('It must be a whole number of at least 1.');
  return Number(text);
}

/** Read when a command runs: the configuration takes longer to load than help takes to show. */
async function readEnvironment() {
  const { readCliEnvironment } = await import('../config.ts');
  return readCliEnvironment();
}
