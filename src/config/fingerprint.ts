// Whether files say the same as before: by what is in them, since times and names of files tell little (a Kubernetes ConfigMap changes
// a link to a link).

import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';

/** The same text for the same contents, and another one for others. A file that cannot be read counts by its reason. */
export function fingerprint(files: readonly string[]): string {
  const hash = createHash('sha256');
  for (const file of files) {
    const content = contentOf(file);
    hash.update(`${file}\0${content.length}\0`).update(content);
  }
  return hash.digest('hex');
}

function contentOf(file: string): Buffer {
  try {
    return readFileSync(file);
  } catch (error) {
    return Buffer.from(error instanceof Error && 'code' in error ? String(error.code) : 'unreadable');
  }
}
