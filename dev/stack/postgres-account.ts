// Postgres refuses to run as root. As root, this file finds an account for it, and places for binaries and data that the
// account can enter even when the checkout lies in a folder closed to others. Without root there is nothing to do.
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  chmodSync,
  chownSync,
  cpSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { StackError } from './stack-error.ts';

const run = promisify(execFile);

/** Open to every account, unlike a home or a temporary folder, and not cleared when the machine starts. */
const OPEN_FOLDER = '/var/lib/weir';

/** Beside each data folder: which link it belongs to. */
const ORIGIN = '.origin';

export type Account = { uid: number; gid: number };

export type PostgresPlace = {
  initdb: string;
  postgres: string;
  dataDir: string;
  /** undefined: run it as ourselves */
  account: Account | undefined;
};

/**
 * Says with which account, binaries and data folder to run.
 *
 * @param dataDir where the data should be; as root it may become a link to a folder that the account can enter
 */
export async function prepareAccount(
  binaries: { initdb: string; postgres: string },
  dataDir: string,
): Promise<PostgresPlace> {
  mkdirSync(dirname(dataDir), { recursive: true });
  if (process.getuid?.() !== 0) return { ...binaries, dataDir, account: undefined };
  const account = await findAccount();
  const reachable = (await canRun(account, binaries.postgres)) ? binaries : copyBinaries(binaries);
  const place = (await canEnter(account, dirname(dataDir))) ? dataDir : linkData(dataDir);
  return { initdb: reachable.initdb, postgres: reachable.postgres, dataDir: place, account };
}

/** Makes the account the owner of a folder; does nothing when we run it as ourselves. */
export function giveTo(account: Account | undefined, folder: string): void {
  if (account !== undefined) chownSync(folder, account.uid, account.gid);
}

/** An account that exists is used: a development stack makes none on somebody's machine. */
async function findAccount(): Promise<Account> {
  for (const name of ['postgres', 'nobody']) {
    const id = async (flag: string) => Number((await run('id', [flag, name])).stdout);
    try {
      return { uid: await id('-u'), gid: await id('-g') };
    } catch {
      // no such account: the next one
    }
  }
  throw new StackError(
    'Postgres refuses to run as root and there is no account `postgres` or `nobody` to run it: make one, ' +
      'run the stack as another user, or set DATABASE_URL to a server that runs',
  );
}

async function canRun(account: Account, program: string): Promise<boolean> {
  return run(program, ['--version'], { ...account, cwd: '/' }).then(
    () => true,
    () => false,
  );
}

async function canEnter(account: Account, folder: string): Promise<boolean> {
  return run('/bin/sh', ['-c', 'cd "$1"', 'sh', folder], { ...account, cwd: '/' }).then(
    () => true,
    () => false,
  );
}

/** Copies the whole tree of the package, once per version: the programs find their libraries relative to themselves. */
function copyBinaries({ initdb, postgres }: { initdb: string; postgres: string }): {
  initdb: string;
  postgres: string;
} {
  const tree = dirname(dirname(postgres));
  const { version } = JSON.parse(readFileSync(join(dirname(tree), 'package.json'), 'utf8')) as {
    version: string;
  };
  const target = join(openFolder(), `postgres-${version}-${process.platform}-${process.arch}`);
  if (!existsSync(target)) {
    const unfinished = mkdtempSync(`${target}.tmp-`);
    cpSync(tree, unfinished, { recursive: true, verbatimSymlinks: true });
    chmodSync(unfinished, 0o755);
    try {
      renameSync(unfinished, target);
    } catch (error) {
      rmSync(unfinished, { recursive: true });
      if (!existsSync(target)) throw error; // else another stack was quicker
    }
  }
  const moved = (program: string) => join(target, basename(dirname(program)), basename(program));
  return { initdb: moved(initdb), postgres: moved(postgres) };
}

/**
 * The data lies in the open folder and the state folder holds a link to it. The link decides: without it the data
 * belongs to a state folder that was deleted to begin anew, and is deleted too.
 */
function linkData(dataDir: string): string {
  const folder = openFolder();
  removeOrphans(folder);
  const target = join(folder, `data-${createHash('sha256').update(dataDir).digest('hex').slice(0, 16)}`);
  if (isLinkTo(dataDir, target)) return target;
  if (lstatSync(dataDir, { throwIfNoEntry: false }) !== undefined) {
    throw new StackError(
      `the account that runs Postgres for root may not enter the folder of its data ${dataDir}: open the folders above, ` +
        'or remove the data to begin anew',
    );
  }
  rmSync(target, { recursive: true, force: true });
  // The link first: whoever cleans up at this moment must find the origin true.
  symlinkSync(target, dataDir);
  writeFileSync(`${target}${ORIGIN}`, dataDir);
  return target;
}

/**
 * Deletes data whose state folder is gone, so that folders made for a test do not pile up here. A folder above that is
 * gone as well may be a disk that is not there today: then the data stays, unless it was a temporary folder.
 */
function removeOrphans(folder: string): void {
  for (const name of readdirSync(folder).filter((entry) => entry.endsWith(ORIGIN))) {
    const target = join(folder, name.slice(0, -ORIGIN.length));
    const dataDir = originIn(join(folder, name));
    if (dataDir === undefined) continue;
    const isAway = !existsSync(dirname(dirname(dataDir))) && !dataDir.startsWith(tmpdir());
    if (isAway || isLinkTo(dataDir, target)) continue;
    rmSync(target, { recursive: true, force: true });
    rmSync(join(folder, name), { force: true });
  }
}

/** Undefined when another stack, which starts at this moment, was quicker to clean up. */
function originIn(file: string): string | undefined {
  try {
    return readFileSync(file, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
}

function isLinkTo(path: string, target: string): boolean {
  const isLink = lstatSync(path, { throwIfNoEntry: false })?.isSymbolicLink() ?? false;
  return isLink && readlinkSync(path) === target;
}

function openFolder(): string {
  try {
    mkdirSync(OPEN_FOLDER, { recursive: true });
    chmodSync(OPEN_FOLDER, 0o755);
  } catch (error) {
    throw new StackError(
      `Postgres needs a folder that its account can enter, and ${OPEN_FOLDER} cannot be made: put the checkout and ` +
        'WEIR_STATE_DIR where other users may enter, or set DATABASE_URL to a server that runs',
      { cause: error },
    );
  }
  return OPEN_FOLDER;
}
