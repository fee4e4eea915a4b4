// Text that fits: lengths in UTF-8 bytes, cuts at characters, and the two things that no store and no provider takes (NUL, lone
// surrogates). Pure and free of Node, since workflows use it.

/** UTF-8 length in bytes; a lone surrogate counts as the 3 bytes of its replacement. */
export function utf8Bytes(text: string): number {
  let bytes = 0;
  for (let index = 0; index < text.length; index += 1) {
    const unit = text.charCodeAt(index);
    if (unit < 0x80) bytes += 1;
    else if (unit < 0x800) bytes += 2;
    else if (isHighSurrogate(unit) && isLowSurrogate(text.charCodeAt(index + 1))) {
      bytes += 4;
      index += 1;
    } else bytes += 3;
  }
  return bytes;
}

/** Whether text can be stored and sent as it is: no NUL, no lone surrogate. */
export function isCleanText(text: string): boolean {
  return !text.includes('\u0000') && text.isWellFormed();
}

/** Text without NUL, lone surrogates replaced by U+FFFD. */
export function cleanText(text: string): string {
  return text.replaceAll('\u0000', '').toWellFormed();
}

/**
 * A summary for Temporal's Web UI: one line, at most 120 characters and 350 bytes as JSON (the server refuses 400), cut at a
 * character.
 */
export function toSummary(text: string): string {
  const characters = Array.from(cleanText(text).replaceAll(/\s+/g, ' ').trim());
  let kept = characters.slice(0, 120);
  const fits = (candidate: string[]) => utf8Bytes(JSON.stringify(candidate.join(''))) <= 350;
  if (kept.length < characters.length) kept = [...kept.slice(0, 119), '…'];
  while (!fits(kept)) kept = [...kept.slice(0, -2), '…'];
  return kept.join('');
}

function isHighSurrogate(unit: number): boolean {
  return unit >= 0xd800 && unit <= 0xdbff;
}

function isLowSurrogate(unit: number): boolean {
  return unit >= 0xdc00 && unit <= 0xdfff;
}
