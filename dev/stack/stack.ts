// The embedded stack: servers, migrations, workers and gateway as one thing that starts whole or not at all, is kept
// alive, and stops in order. How each part is started stands in the part's own file.
import { join } from 'node:path';
import type { Exit } from './child.ts';
import { Part } from './part.ts';
import { Ports } from './ports.ts';
import { ProcessTable, stopLeftovers } from './process-table.ts';
import type { Server, Start } from './server.ts';
import { checkGiven, planServers, type ServerName, type ServerPlan } from './servers.ts';
import { inheritedEnvironment, joinVariables } from './stack-environment.ts';
import { StackError } from './stack-error.ts';
import {
  describeStack,
  isWorker,
  type PartName,
  removeStackInfo,
  type StackInfo,
  writeStackInfo,
} from './stack-info.ts';
import { type ResolvedOptions, resolveOptions, type StackOptions } from './stack-options.ts';
import { checkStateFolder, lockStateFolder } from './state-folder.ts';
import { gatewayStart, workerStart } from './weir-parts.ts';
import { runWeirCommand } from './weir-process.ts';

export type { StackInfo } from './stack-info.ts';
export type { StackOptions } from './stack-options.ts';

/** A stack that is running. */
export type Stack = {
  /** what stack.json holds at this moment */
  readonly info: StackInfo;
  /** variables for a process that is to join the stack, as the workers have them */
  readonly env: Readonly<Record<string, string>>;
  /** resolves with a message when a part died too often and stays down; never rejects, pending otherwise */
  readonly failed: Promise<string>;
  /** SIGKILL to a worker, counted from 0; it is started again. Resolves when it is dead */
  killWorker(index: number): Promise<Exit>;
  /** SIGKILL to a part; it is started again on its port and data. Resolves when it is dead */
  kill(part: PartName): Promise<Exit>;
  /** stops (or kills) a part and keeps it down until `resume` */
  halt(part: PartName, how?: { kill?: boolean }): Promise<void>;
  /** starts a halted part again, on its port and data; resolves when it is ready */
  resume(part: PartName): Promise<void>;
  /** stops everything in order; calls that run may finish within the grace time. May be called again */
  stop(): Promise<void>;
};

/**
 * Starts a stack. Resolves when everything is ready and stack.json is written.
 *
 * @throws StackError with what failed, why, the remedy and the end of its log; everything that was started is stopped
 */
export async function startStack(options: StackOptions): Promise<Stack> {
  const resolved = resolveOptions(options);
  const { stateDir, log, commands } = resolved;
  checkStateFolder(stateDir);
  const lock = lockStateFolder(stateDir);
  try {
    removeStackInfo(stateDir);
    await stopLeftovers(stateDir, log);
    const plan = planServers({ ...resolved, providerCommand: commands.provider });
    const stack = new EmbeddedStack(resolved, plan, lock.release);
    await stack.start();
    return stack;
  } catch (error) {
    lock.release();
    throw error;
  }
}

class EmbeddedStack implements Stack {
  readonly failed: Promise<string>;
  readonly #options: ResolvedOptions;
  readonly #plan: ServerPlan;
  readonly #table: ProcessTable;
  readonly #ports: Ports;
  readonly #parts = new Map<PartName, Part<Server>>();
  /** what is still starting; a stop waits for it, so that nothing is started behind its back */
  readonly #pending = new Set<Promise<unknown>>();
  /** ends the start of what is no part: the commands */
  readonly #starting = new AbortController();
  readonly #releaseLock: () => void;
  #giveUp: (message: string) => void = () => undefined;
  #bundle: string | undefined;
  #isReady = false;
  #stopping: Promise<void> | undefined;

  constructor(options: ResolvedOptions, plan: ServerPlan, releaseLock: () => void) {
    this.#options = options;
    this.#plan = plan;
    this.#table = new ProcessTable(options.stateDir);
    this.#ports = new Ports(options.log);
    this.#releaseLock = releaseLock;
    this.failed = new Promise((resolve) => {
      this.#giveUp = resolve;
    });
  }

  async start(): Promise<void> {
    const { signal, kill, stateDir } = this.#options;
    const interrupt = () => this.#interrupt();
    signal.addEventListener('abort', interrupt, { once: true });
    kill.addEventListener('abort', this.#killNow, { once: true });
    try {
      signal.throwIfAborted();
      await this.#startAll();
      signal.throwIfAborted();
      writeStackInfo(stateDir, this.info);
      this.#isReady = true;
    } catch (error) {
      await this.stop();
      throw signal.aborted ? new StackError('the stack was stopped while it was starting') : error;
    } finally {
      signal.removeEventListener('abort', interrupt);
    }
  }

  get info(): StackInfo {
    return describeStack(this.#parts, this.#plan, this.#options.adminKey);
  }

  get env(): Record<string, string> {
    return joinVariables(this.#options, this.info, this.#bundle);
  }

  killWorker(index: number): Promise<Exit> {
    return this.kill(`worker-${index + 1}`);
  }

  async kill(name: PartName): Promise<Exit> {
    const child = this.#part(name).current?.child;
    if (child === undefined) throw new StackError(`${name} is down already`);
    child.kill();
    return child.exited;
  }

  halt(name: PartName, how: { kill?: boolean } = {}): Promise<void> {
    return this.#part(name).halt(how);
  }

  async resume(name: PartName): Promise<void> {
    await this.#part(name).start();
  }

  stop(): Promise<void> {
    this.#stopping ??= this.#stopInOrder();
    return this.#stopping;
  }

  async #startAll(): Promise<void> {
    const { processes, commands, workers, log } = this.#options;
    const bundle = join(this.#options.stateDir, 'workflow-bundle.js');
    const bundling = processes ? this.#command('bundle', [...commands.bundle, bundle]) : Promise.resolve();
    const servers = Object.entries(this.#plan.start) as [ServerName, Start][]; // the keys of a plan are server names
    await Promise.all([
      this.#track(checkGiven(this.#plan.given)),
      bundling,
      ...servers.map(([name, start]) => this.#startPart(name, start)),
    ]);
    if (!processes) return;
    log('servers are ready; migrating the database and starting gateway and workers');
    this.#bundle = bundle;
    await this.#command('migrate', commands.migrate);
    await Promise.all([
      this.#startPart('gateway', gatewayStart(this.#options)),
      ...Array.from({ length: workers }, (_, index) =>
        this.#startPart(`worker-${index + 1}`, workerStart(this.#options, index)),
      ),
    ]);
  }

  #startPart(name: PartName, start: Start): Promise<unknown> {
    const isServer = name in this.#plan.start;
    const part = new Part<Server>({
      name,
      start: (signal) => start(this.#context(signal, isServer)),
      log: this.#options.log,
      onChange: () => this.#update(),
      onGiveUp: (message) => this.#giveUp(message),
    });
    this.#parts.set(name, part);
    return this.#track(part.start());
  }

  #command(name: string, args: readonly string[]): Promise<void> {
    return this.#track(runWeirCommand(this.#context(this.#starting.signal, false), { name, args }));
  }

  #context(signal: AbortSignal, isServer: boolean) {
    const environment = isServer ? this.#options.environment : this.#processEnvironment();
    return { table: this.#table, ports: this.#ports, environment, signal };
  }

  #processEnvironment(): NodeJS.ProcessEnv {
    const ownTemporal = this.#plan.given.temporal === undefined;
    return { ...inheritedEnvironment(this.#options, ownTemporal), ...this.env };
  }

  #part(name: PartName): Part<Server> {
    const part = this.#parts.get(name);
    if (part === undefined) throw new StackError(`this stack has no part ${name} of its own`);
    return part;
  }

  #track<T>(starting: Promise<T>): Promise<T> {
    this.#pending.add(starting);
    return starting.finally(() => this.#pending.delete(starting));
  }

  /** Keeps stack.json true once it is there. A disk that is full then is said, but is no reason to stop. */
  #update(): void {
    if (!this.#isReady || this.#stopping !== undefined) return;
    try {
      writeStackInfo(this.#options.stateDir, this.info);
    } catch (error) {
      this.#options.log(`stack.json could not be written: ${error instanceof Error ? error.message : error}`);
    }
  }

  readonly #killNow = (): void => {
    this.#interrupt();
    this.#table.killAll();
  };

  /** Ends supervision and whatever is starting; what runs goes on until it is stopped. */
  #interrupt(): void {
    this.#starting.abort();
    for (const part of this.#parts.values()) part.retire();
  }

  async #stopInOrder(): Promise<void> {
    removeStackInfo(this.#options.stateDir);
    this.#interrupt();
    const halt = (name: PartName) => this.#parts.get(name)?.halt();
    await halt('gateway');
    await Promise.all([...this.#parts.keys()].filter(isWorker).map(halt));
    for (const name of ['provider', 'temporal', 'redis', 'postgres'] as const) await halt(name);
    await Promise.allSettled(this.#pending);
    await this.#table.close();
    this.#options.kill.removeEventListener('abort', this.#killNow);
    this.#releaseLock();
  }
}
