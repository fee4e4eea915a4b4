// What must hold of docker-compose.yml, .env.example and the Dockerfile, as far as it can be told without an engine: the files are
// read, nothing is built and nothing is started.

import { execFile } from 'node:child_process';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join, relative, sep } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { describe, expect, it } from 'vitest';
import { parse } from 'yaml';
import { knownEnvironment } from '../../src/config.ts';

type Service = {
  readonly image?: string;
  readonly command?: readonly string[];
  readonly entrypoint?: readonly string[];
  readonly container_name?: string;
  /** `null`: passed on from .env or the shell, and absent where it is absent there. */
  readonly environment?: Readonly<Record<string, string | null>>;
  readonly ports?: readonly string[];
  readonly user?: string;
  readonly init?: boolean;
  readonly read_only?: boolean;
  readonly restart?: string;
  readonly healthcheck?: { readonly test: readonly string[] };
  readonly depends_on?: Readonly<Record<string, { readonly condition: string }>>;
  readonly stop_grace_period?: string;
  readonly volumes?: readonly string[];
  readonly deploy?: {
    readonly resources: { readonly limits: { readonly cpus: string; readonly memory: string } };
  };
};

const ROOT = fileURLToPath(new URL('../../', import.meta.url));
const COMPOSE = join(ROOT, 'docker-compose.yml');
const WEIR_SERVICES = ['migrate', 'worker', 'gateway'] as const;
const LONG_RUNNING = ['worker', 'gateway', 'postgres', 'redis', 'temporal'] as const;

const run = promisify(execFile);
const read = (path: string) => readFile(join(ROOT, path), 'utf8');
const composeText = await read('docker-compose.yml');
const { services } = parse(composeText, { merge: true }) as { services: Readonly<Record<string, Service>> };
const dockerfile = await read('Dockerfile');
const packageJson = JSON.parse(await read('package.json')) as {
  readonly version: string;
  readonly dependencies: Readonly<Record<string, string>>;
  readonly devDependencies: Readonly<Record<string, string>>;
};
/** Every release of Docker's client can do without the compose plugin. */
const hasComposeClient = await run('docker', ['compose', 'version']).then(
  () => true,
  () => false,
);

describe('docker-compose.yml', () => {
  it.each(WEIR_SERVICES)('sets only names that Weir knows for %s', (name) => {
    const known = knownEnvironment();
    const names = Object.keys(service(name).environment ?? {});
    expect(names.length).toBeGreaterThan(0);
    expect(names.filter((variable) => !known.has(variable))).toEqual([]);
  });

  it.each(WEIR_SERVICES)('runs %s restricted: no root, no writes, no fixed name, an init', (name) => {
    const { user, init, read_only, container_name } = service(name);
    expect(user).toMatch(/^(?!root$|0(:|$))\w/);
    expect({ init, read_only, container_name }).toEqual({
      init: true,
      read_only: true,
      container_name: undefined,
    });
  });

  it.each(Object.keys(services))('restarts and limits %s', (name) => {
    const { restart, deploy } = service(name);
    expect(restart).toMatch(/^(unless-stopped|always|on-failure(:\d+)?)$/);
    expect(Number(deploy?.resources.limits.cpus)).toBeGreaterThan(0);
    expect(deploy?.resources.limits.memory).toMatch(/^\d+[MG]$/);
  });

  it.each(LONG_RUNNING)('checks the health of %s', (name) => {
    expect(service(name).healthcheck?.test.length).toBeGreaterThan(1);
  });

  it.each([
    ['worker', 'METRICS_HOST', 'METRICS_PORT'],
    ['gateway', 'WEIR_GATEWAY_HOST', 'WEIR_GATEWAY_PORT'],
  ] as const)('asks %s for its readiness at the port it listens on', (name, host, port) => {
    const { environment = {}, healthcheck } = service(name);
    expect(environment[host]).toBe('0.0.0.0');
    const check = healthcheck?.test ?? [];
    expect(check.slice(0, 3)).toEqual(['CMD', 'node', '-e']);
    expect(check[3]).toContain(`http://127.0.0.1:${environment[port]}/health/ready`);
    // The text must be a program: a mistake in it would make a healthy container look ill.
    expect(() => new Function(check[3] ?? '')).not.toThrow();
  });

  it('starts workers and gateway only after their servers are ready and the schema is there', () => {
    for (const name of ['worker', 'gateway'] as const)
      expect(service(name).depends_on).toEqual({
        migrate: { condition: 'service_completed_successfully' },
        redis: { condition: 'service_healthy' },
        temporal: { condition: 'service_healthy' },
        'temporal-setup': { condition: 'service_completed_successfully' },
      });
    expect(service('migrate').depends_on).toEqual({ postgres: { condition: 'service_healthy' } });
  });

  it('lets workers be scaled: no port is fixed', () => {
    expect(service('worker').ports).toBeUndefined();
  });

  it('gives workers more time to stop than their calls may take', () => {
    const { environment = {}, stop_grace_period } = service('worker');
    expect(seconds(stop_grace_period)).toBeGreaterThan(seconds(environment['WEIR_SHUTDOWN_GRACE']));
  });

  it('keeps everything in Redis, on disk and in memory', () => {
    const command = (service('redis').command ?? []).join(' ');
    expect(command).toContain('--maxmemory-policy noeviction');
    expect(command).toContain('--appendonly yes');
    expect(service('redis').volumes?.[0]).toMatch(/^redis:/);
  });

  it('refuses to start without an admin key and passwords', () => {
    const { WEIR_ADMIN_KEY, WEIR_AUTH } = service('gateway').environment ?? {};
    expect(WEIR_AUTH).toBe('keys');
    expect(WEIR_ADMIN_KEY).toMatch(/^\$\{WEIR_ADMIN_KEY:\?.+\}$/);
    for (const name of ['POSTGRES_PASSWORD', 'WEIR_DB_PASSWORD', 'TEMPORAL_DB_PASSWORD'])
      expect(composeText.match(new RegExp(`\\$\\{${name}[^}]*\\}`, 'g'))).toSatisfy(
        (uses: readonly string[] | null) => (uses ?? []).every((use) => use.startsWith(`\${${name}:?`)),
      );
  });

  it('publishes nothing beyond this machine unless it is told to', () => {
    const published = Object.values(services).flatMap(({ ports = [] }) => ports);
    expect(published.length).toBeGreaterThan(0);
    for (const port of published) expect(port).toMatch(/^\$\{PUBLISH_\w+:-127\.0\.0\.1:\d+\}:\d+$/);
  });

  it('pins every image to a version', () => {
    for (const { image } of Object.values(services)) expect(image).toMatch(/:\d+\.\d+\.\d+/);
    for (const name of WEIR_SERVICES) expect(service(name).image).toBe(`weir:${packageJson.version}`);
  });

  it('mounts only files that are there', async () => {
    const mounts = Object.values(services).flatMap(({ volumes = [] }) => volumes);
    const files = mounts.flatMap((mount) => (mount.startsWith('./') ? [mount.split(':')[0] ?? ''] : []));
    const text = (path: string) => read(path.endsWith('/config') ? `${path}/README.md` : path);
    for (const file of files) expect(await text(file)).not.toBe('');
  });

  // Without the client this says no more than the parse above; the title tells which of the two was done.
  it(`is accepted by the compose client (${hasComposeClient ? 'asked' : 'not on this machine: only parsed'})`, async () => {
    expect(Object.keys(services)).toEqual(expect.arrayContaining([...WEIR_SERVICES, ...LONG_RUNNING]));
    if (!hasComposeClient) return;
    const folder = await mkdtemp(join(tmpdir(), 'weir-compose-'));
    try {
      const filled = (await read('.env.example')).replace(/^(\w*(?:PASSWORD|ADMIN_KEY))=$/gm, '$1=example');
      await writeFile(join(folder, 'env'), filled);
      const flags = ['--env-file', join(folder, 'env'), '-f', COMPOSE];
      await run('docker', ['compose', ...flags, 'config', '--quiet']);
    } finally {
      await rm(folder, { recursive: true });
    }
  });
});

describe('.env.example', () => {
  it('names the variables that docker-compose.yml reads, and no others', async () => {
    const lines = (await read('.env.example')).split('\n');
    const named = lines.flatMap((line) => /^(?:# )?([A-Z_]+)=/.exec(line)?.[1] ?? []);
    const passedOn = Object.values(services).flatMap(({ environment = {} }) =>
      Object.entries(environment).flatMap(([name, value]) => (value === null ? [name] : [])),
    );
    const used = [...[...composeText.matchAll(/\$\{([A-Z_]+)/g)].map((match) => match[1]), ...passedOn];
    expect(named.toSorted()).toEqual([...new Set(used)].toSorted());
  });

  it('shows the defaults that docker-compose.yml has', async () => {
    const text = await read('.env.example');
    for (const [, name, value] of composeText.matchAll(/\$\{([A-Z_]+):-([^}]*)\}/g))
      expect(text).toMatch(new RegExp(`^${name}=${value}$`, 'm'));
  });
});

describe('Dockerfile', () => {
  it('copies what the processes read, from what the build may see', async () => {
    const copied = [...dockerfile.matchAll(/^COPY (?!--from)(.+)$/gm)].flatMap((match) =>
      (match[1] ?? '').split(' ').slice(0, -1),
    );
    expect(copied).toEqual(expect.arrayContaining(['package.json', 'package-lock.json', 'src', 'config']));
    const ignore = (await read('.dockerignore')).split('\n');
    expect(ignore).toContain('*');
    for (const path of copied) expect(ignore).toContain(`!${path}`);
  });

  it('runs on the Node that the tests run on, not as root, without a shell in between', async () => {
    expect(dockerfile).toContain(`ARG NODE_VERSION=${packageJson.devDependencies['node']}\n`);
    expect(packageJson.devDependencies['node']).toMatch(new RegExp(`^${(await read('.nvmrc')).trim()}\\.`));
    expect(dockerfile).toMatch(/^USER (?!root|0)\w+$/m);
    expect(dockerfile).toMatch(/^ENTRYPOINT \["node"\]$/m);
  });

  it('sets only names that Weir knows', () => {
    const known = knownEnvironment();
    const names = [...dockerfile.matchAll(/^ENV (\w+)=/gm)].map((match) => match[1] ?? '');
    expect(names).toContain('WEIR_WORKFLOW_BUNDLE');
    expect(names.filter((name) => !known.has(name))).toEqual([]);
  });

  it.each(['src/worker.ts', 'src/gateway.ts', 'src/cli/program.ts'])(
    'has all that %s imports at its start',
    async (entry) => {
      const { files, packages } = await importsOf(entry);
      expect(files.length + packages.length).toBeGreaterThan(1);
      expect(files.filter((file) => !file.startsWith('src/'))).toEqual([]);
      expect(packages.filter((name) => !Object.hasOwn(packageJson.dependencies, name))).toEqual([]);
    },
  );

  it('is told by docker-compose.yml to run files that are in it', () => {
    const commands = WEIR_SERVICES.map((name) => service(name).command?.[0]);
    expect(commands).toEqual(['src/cli.ts', 'src/worker.ts', 'src/gateway.ts']);
  });
});

function service(name: string): Service {
  const found = services[name];
  if (found === undefined) throw new Error(`docker-compose.yml has no service ${name}`);
  return found;
}

function seconds(text: string | null | undefined): number {
  const match = /^(\d+)s$/.exec(text ?? '');
  if (match === null) throw new Error(`not a number of seconds: ${text}`);
  return Number(match[1]);
}

const STATIC_IMPORT = /^(?:import|export)\s+(?!type\b)(?:[^'";]*?\sfrom\s+)?'([^']+)'/gm;

/** Files and packages that Node loads before the first line of a program runs; `import()` and types are left out. */
async function importsOf(entry: string): Promise<{ files: readonly string[]; packages: readonly string[] }> {
  const files = new Set<string>();
  const packages = new Set<string>();
  const visit = async (file: string): Promise<void> => {
    if (files.has(file)) return;
    files.add(file);
    for (const [, name = ''] of (await read(file)).matchAll(STATIC_IMPORT)) {
      if (name.startsWith('.'))
        await visit(
          relative(ROOT, join(ROOT, dirname(file), name))
            .split(sep)
            .join('/'),
        );
      else if (!name.startsWith('node:'))
        packages.add(name.split('/', name.startsWith('@') ? 2 : 1).join('/'));
    }
  };
  await visit(entry);
  return { files: [...files], packages: [...packages] };
}
