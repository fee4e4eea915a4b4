// The only file of the command line that writes: lines, tables, colours on a terminal. It knows nothing of tasks.

const isTerminal = process.stdout.isTTY === true;

// A reader that leaves (`weir tasks | head`) is no fault of ours.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code !== 'EPIPE') throw error;
  process.exit();
});

/** Whether standard output is a terminal on which lines can be redrawn. */
export function isLive(): boolean {
  return isTerminal;
}

/** Columns and rows of the terminal; a terminal that does not know says 0. */
export function terminalSize(): { readonly columns: number; readonly rows: number } {
  return { columns: process.stdout.columns || 80, rows: process.stdout.rows || 24 };
}

/** Writes a text as it is, without a line break. */
export function write(text: string): void {
  process.stdout.write(text);
}

export function say(line = ''): void {
  process.stdout.write(`${line}\n`);
}

/** To standard error: what must not end up in a pipe. */
export function tell(line: string): void {
  process.stderr.write(`${line}\n`);
}

function colour(code: number, text: string): string {
  return isTerminal ? `\u001b[${code}m${text}\u001b[0m` : text;
}

export const bold = (text: string): string => colour(1, text);
export const dim = (text: string): string => colour(2, text);
export const red = (text: string): string => colour(31, text);
export const green = (text: string): string => colour(32, text);
export const yellow = (text: string): string => colour(33, text);

/** A stranger's text without what a terminal would obey; line breaks and tabs stay. */
export function printable(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what is looked for
  return text.replaceAll(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f]/g, '');
}

/** One line of at most `length` characters. */
export function shorten(text: string, length: number): string {
  const characters = Array.from(printable(text).replaceAll(/\s+/g, ' ').trim());
  return characters.length <= length ? characters.join('') : `${characters.slice(0, length - 1).join('')}…`;
}

export type Column = { readonly title: string; readonly right?: boolean };

/** Columns as wide as their widest cell; those marked `right` are aligned there. Cells carry no colours. */
export function table(columns: readonly Column[], rows: readonly (readonly string[])[]): void {
  const lines = rows.map((row) => columns.map((_, index) => printable(row[index] ?? '')));
  const widths = columns.map(({ title }, index) =>
    Math.max(title.length, ...lines.map((line) => line[index]?.length ?? 0)),
  );
  const format = (cells: readonly string[]) =>
    columns
      .map(({ right }, index) => {
        const [cell, width] = [cells[index] ?? '', widths[index] ?? 0];
        return right === true ? cell.padStart(width) : cell.padEnd(width);
      })
      .join('  ')
      .trimEnd();
  say(dim(format(columns.map(({ title }) => title))));
  for (const line of lines) say(format(line));
}
