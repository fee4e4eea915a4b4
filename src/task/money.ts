// Money as integer nano-USD. Decimals exist at the edges only, and this is the edge: what is read and what is shown. Pure, no
// floating point: an amount that was typed is the amount that is charged.

/** Limits above 9 million USD are refused: 2^53 nano-USD is what every store and client can count exactly. */
export const MAX_LIMIT_NANO_USD = 9_000_000n * 1_000_000_000n;

const NANO_PER_USD = 1_000_000_000n;

/** Up to 15 digits before the point, up to 9 behind it: no sign, no exponent, no bare point. */
const DECIMAL = /^(\d{1,15})(?:\.(\d{1,9}))?$/;

/**
 * A decimal text in USD, or a JSON number, as nano-USD. Undefined when it is negative, not finite, finer than a nano-USD or no
 * plain decimal. A number is read by its shortest decimal form, so that 0.1 is exactly 100,000,000.
 */
export function parseUsd(value: string | number): bigint | undefined {
  const match = DECIMAL.exec(typeof value === 'number' ? toPlainDecimal(value) : value);
  if (match === null) return undefined;
  const [, whole = '', fraction = ''] = match;
  return BigInt(whole) * NANO_PER_USD + BigInt(fraction.padEnd(9, '0'));
}

/** The canonical decimal text in USD: at least two decimals, no zeros beyond them ('5.00', '0.000123'). */
export function formatUsd(nano: bigint): string {
  const amount = nano < 0n ? -nano : nano;
  const fraction = (amount % NANO_PER_USD)
    .toString()
    .padStart(9, '0')
    .replace(/0{1,7}$/, '');
  return `${nano < 0n ? '-' : ''}${amount / NANO_PER_USD}.${fraction}`;
}

/** JavaScript writes numbers below 1e-6 with an exponent; those from 1e21 on are refused later for their length. */
function toPlainDecimal(value: number): string {
  const match = /^(\d)(?:\.(\d+))?e-(\d+)$/.exec(String(value));
  if (match === null) return String(value);
  const [, first = '', rest = '', exponent = ''] = match;
  return `0.${'0'.repeat(Number(exponent) - 1)}${first}${rest}`;
}
