// How this provider counts tokens: a quarter of the UTF-8 bytes, rounded up. The one rule serves usage, limits and `max_tokens`,
// so that a test can work out every figure by hand. No real tokenizer agrees with it, and none should be brought in here.

const BYTES_PER_TOKEN = 4;

/** Tokens of a text: ceil(UTF-8 bytes / 4). */
export function countTokens(text: string): number {
  return Math.ceil(Buffer.byteLength(text) / BYTES_PER_TOKEN);
}

/** The longest beginning of a text that is at most so many tokens, cut at a character. */
export function cutToTokens(text: string, tokens: number): string {
  const maxBytes = tokens * BYTES_PER_TOKEN;
  let bytes = 0;
  let end = 0;
  for (const character of text) {
    bytes += utf8Length(character);
    if (bytes > maxBytes) return text.slice(0, end);
    end += character.length;
  }
  return text;
}

/** Cuts a text into pieces of about so many tokens each; together they are the text, and no character is split. */
export function splitByTokens(text: string, tokensPerPiece: number): string[] {
  const pieces: string[] = [];
  const step = tokensPerPiece * BYTES_PER_TOKEN;
  let bytes = 0;
  let start = 0;
  let end = 0;
  for (const character of text) {
    bytes += utf8Length(character);
    end += character.length;
    if (bytes < step * (pieces.length + 1)) continue;
    pieces.push(text.slice(start, end));
    start = end;
  }
  if (start < text.length) pieces.push(text.slice(start));
  return pieces;
}

/** How many tokens are there after each piece. Bytes are summed before they are rounded up: tokens of pieces add up to too many. */
export function runningTokens(pieces: readonly string[]): number[] {
  let bytes = 0;
  return pieces.map((piece) => {
    bytes += Buffer.byteLength(piece);
    return Math.ceil(bytes / BYTES_PER_TOKEN);
  });
}

/** Exactly so many tokens of a text, which is repeated as often as it takes. */
export function repeatToTokens(text: string, tokens: number): string {
  if (tokens === 0) return '';
  const unit = `${text.trim() === '' ? 'nothing' : text} `;
  const times = Math.ceil((tokens * BYTES_PER_TOKEN) / Buffer.byteLength(unit));
  return cutToTokens(unit.repeat(times), tokens);
}

function utf8Length(character: string): number {
  const point = character.codePointAt(0) ?? 0;
  if (point < 0x80) return 1;
  if (point < 0x800) return 2;
  return point < 0x10000 ? 3 : 4;
}
