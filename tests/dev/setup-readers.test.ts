// The set-up step that tests alone need, on machines made of shell scripts: where nginx and Chromium are found, how they are installed,
// and what is said when they cannot be.

import { chmodSync, existsSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { setUpReaders } from '../../scripts/setup-readers.mjs';
import { FakeMachine } from './stack/fake-machine.ts';

/** An apt-get without lists of packages, until they are fetched; it puts what it installs on the PATH. */
function withApt(machine: FakeMachine): string {
  machine.write('system/usr/sbin/keep', '');
  const policy = join(machine.folder, 'system/usr/sbin/policy-rc.d');
  machine.program(
    'apt-get',
    `if [ "$1" = update ]; then : > "${machine.folder}/lists"; exit 0; fi
       [ -x "${policy}" ] || exit 9
       [ -f "${machine.folder}/lists" ] || exit 100
       for name; do :; done
       : > "${machine.bin}/$name"
       /bin/chmod 755 "${machine.bin}/$name"`,
  );
  return policy;
}

test('finds what is installed and installs nothing', async () => {
  using machine = new FakeMachine();
  machine.program('nginx', '');
  machine.program('google-chrome', '');
  machine.program('apt-get', 'exit 1');
  expect(await setUpReaders({ ...machine.options, isRoot: true })).toEqual({
    nginx: join(machine.bin, 'nginx'),
    chromium: join(machine.bin, 'google-chrome'),
  });
  expect(machine.calls('apt-get')).toEqual([]);
});

test('finds an nginx that is not on the PATH of an ordinary user', async () => {
  using machine = new FakeMachine();
  machine.program('chromium', '');
  machine.write('system/usr/sbin/nginx', '');
  chmodSync(join(machine.folder, 'system/usr/sbin/nginx'), 0o755);
  expect(await setUpReaders(machine.options)).toMatchObject({
    nginx: join(machine.folder, 'system/usr/sbin/nginx'),
  });
});

test('installs both as root, fetching the package lists when needed and starting no service', async () => {
  using machine = new FakeMachine();
  const policy = withApt(machine);
  const lines: string[] = [];
  const say = (line: string) => void lines.push(line);
  expect(await setUpReaders({ ...machine.options, isRoot: true, say })).toEqual({
    nginx: join(machine.bin, 'nginx'),
    chromium: join(machine.bin, 'chromium'),
  });
  expect(lines).toEqual(['nginx: installing it with apt-get …', 'chromium: installing it with apt-get …']);
  expect(existsSync(policy)).toBe(false);
});

test('names the command that installs what is missing when we are not root', async () => {
  using machine = new FakeMachine();
  machine.program('nginx', '');
  machine.program('apt-get', 'exit 1');
  await expect(setUpReaders(machine.options)).rejects.toThrow(
    /^chromium is not installed, .*\nInstall it \(sudo apt-get install chromium\)/,
  );
  expect(machine.calls('apt-get')).toEqual([]);
});

test('shows why a package could not be installed', async () => {
  using machine = new FakeMachine();
  machine.write('system/usr/sbin/keep', '');
  machine.program('apt-get', 'echo E: no space left on device; exit 100');
  await expect(setUpReaders({ ...machine.options, isRoot: true })).rejects.toThrow(
    /nginx is not installed(.|\n)*apt-get was tried and said:\n {2}E: no space left on device/,
  );
});

test('names brew on macOS, and finds an application there', async () => {
  using machine = new FakeMachine();
  const mac = { ...machine.options, platform: 'darwin' };
  await expect(setUpReaders(mac)).rejects.toThrow('brew install nginx');
  machine.program('nginx', '');
  const chrome = 'system/Applications/Google Chrome.app/Contents/MacOS/Google Chrome';
  machine.write(chrome, '');
  chmodSync(join(machine.folder, chrome), 0o755);
  expect(await setUpReaders(mac)).toMatchObject({ chromium: join(machine.folder, chrome) });
});
