// Remembers the beginnings of long prompts, so that a second request with the same beginning is reported as cached. Beginnings
// count from 1,024 tokens on in steps of 128, as with the providers it imitates; what is remembered are hashes, never prompts.

import { createHash } from 'node:crypto';

const FIRST_TOKENS = 1_024;
const STEP_TOKENS = 128;
const STEP_BYTES = STEP_TOKENS * 4;
const REMEMBERED = 65_536;

export type CacheUse = {
  /** Tokens of the longest beginning that was seen before. */
  readonly readTokens: number;
  /** Tokens of the beginning that is remembered from now on, without those read. */
  readonly writtenTokens: number;
};

export type PromptCache = ReturnType<typeof createPromptCache>;

export function createPromptCache() {
  const seen = new Map<string, true>();

  function remember(key: string): void {
    seen.delete(key);
    seen.set(key, true);
    const oldest = seen.keys().next();
    if (seen.size > REMEMBERED && oldest.done !== true) seen.delete(oldest.value);
  }

  return {
    /** Looks a prompt up and remembers it. `space` keeps models apart. */
    use(space: string, prompt: string): CacheUse {
      const keys = beginnings(space, prompt);
      const readTokens = tokensOf(keys.findLastIndex((key) => seen.has(key)));
      for (const key of keys) remember(key);
      return { readTokens, writtenTokens: tokensOf(keys.length - 1) - readTokens };
    },
  };
}

function tokensOf(index: number): number {
  return index < 0 ? 0 : FIRST_TOKENS + index * STEP_TOKENS;
}

/** One hash for each beginning of 1,024, 1,152, … tokens. */
function beginnings(space: string, prompt: string): string[] {
  const bytes = Buffer.from(prompt);
  const hash = createHash('sha256').update(`${space}\n`);
  const keys: string[] = [];
  for (let end = STEP_BYTES; end <= bytes.length; end += STEP_BYTES) {
    hash.update(bytes.subarray(end - STEP_BYTES, end));
    if (end >= FIRST_TOKENS * 4) keys.push(hash.copy().digest('base64'));
  }
  return keys;
}
