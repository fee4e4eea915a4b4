// Comma-separated values as RFC 4180 has them, safe to open in a spreadsheet.

/** A string is a text of whoever wrote it; figures are told apart, since only texts are defused. */
export type CsvCell = string | number | { readonly figure: string | number } | null;

/** Lines end with CRLF; a cell is quoted where it must be. */
export function toCsv(header: readonly string[], rows: readonly (readonly CsvCell[])[]): string {
  return [header, ...rows].map((row) => `${row.map(toCell).join(',')}\r\n`).join('');
}

function toCell(value: CsvCell): string {
  if (value === null) return '';
  const text = typeof value === 'string' ? defused(value) : String(isFigure(value) ? value.figure : value);
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

function isFigure(value: CsvCell): value is { readonly figure: string | number } {
  return typeof value === 'object' && value !== null;
}

/** A spreadsheet takes a cell that begins like this for a formula, quoted or not; an apostrophe before it makes it a text. */
function defused(text: string): string {
  return /^(\s*[=+\-@\uff1d\uff0b\uff0d\uff20]|[\t\r\n])/.test(text) ? `'${text}` : text;
}
