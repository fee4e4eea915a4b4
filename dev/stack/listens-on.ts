// Whether a process itself listens on a port. Linux tells; elsewhere the answer is yes, and a rare mix-up is mended when
// the process that lost its port dies and is started again.
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';

const LISTENING = '0A';

/** Whether one of the process's sockets listens on the port; true when the system does not tell. */
export function listensOn(pid: number, port: number): boolean {
  if (process.platform !== 'linux') return true;
  try {
    const inodes = listeningInodes(port);
    return readdirSync(`/proc/${pid}/fd`).some((descriptor) => {
      const inode = /^socket:\[(\d+)\]$/.exec(linkOf(`/proc/${pid}/fd/${descriptor}`))?.[1];
      return inode !== undefined && inodes.has(inode);
    });
  } catch (error) {
    // A process of another account, or one that is gone: its exit will say so.
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'EACCES' || code === 'EPERM' || code === 'ENOENT') return true;
    throw error;
  }
}

function listeningInodes(port: number): Set<string> {
  const suffix = `:${port.toString(16).toUpperCase().padStart(4, '0')}`;
  const rows = ['/proc/net/tcp', '/proc/net/tcp6'].flatMap((file) => readIfThere(file).split('\n').slice(1));
  const inodes = new Set<string>();
  for (const row of rows) {
    const [, local = '', , state, , , , , , inode = ''] = row.trim().split(/\s+/);
    if (state === LISTENING && local.endsWith(suffix)) inodes.add(inode);
  }
  return inodes;
}

function readIfThere(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch {
    return ''; // a machine without IPv6
  }
}

function linkOf(path: string): string {
  try {
    return readlinkSync(path);
  } catch {
    return ''; // closed in the meantime
  }
}
