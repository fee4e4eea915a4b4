import { expect, test } from 'vitest';
import { toCsv } from '../../src/gateway/csv.ts';

test('cells are quoted where they must be', () => {
  expect(
    toCsv(
      ['a', 'b'],
      [
        ['x,y', 1],
        ['say "x"', null],
        ['two\nlines', 0],
        ['', { figure: '0.00' }],
      ],
    ),
  ).toBe('a,b\r\n"x,y",1\r\n"say ""x""",\r\n"two\nlines",0\r\n,0.00\r\n');
});

test.each([
  ['=1+1', "'=1+1"],
  ['+1', "'+1"],
  ['-1', "'-1"],
  ['@sum(A1)', "'@sum(A1)"],
  ['\t=1', "'\t=1"],
  ['\r=1', `"'\r=1"`],
  [' =1', "' =1"],
  ['=HYPERLINK("x","y")', `"'=HYPERLINK(""x"",""y"")"`],
  ['\uff1d1', "'\uff1d1"],
  ['a=1', 'a=1'],
  ['2026-03-01', '2026-03-01'],
  ['ada@example.com', 'ada@example.com'],
])('%j stands in a cell as a text, never as a formula', (text, cell) => {
  expect(toCsv(['h'], [[text]])).toBe(`h\r\n${cell}\r\n`);
});

test('a figure stays a number, a negative one too', () => {
  expect(toCsv(['h', 'i'], [[{ figure: '-0.05' }, { figure: -3 }]])).toBe('h,i\r\n-0.05,-3\r\n');
});
