// What a failed connection says of itself: Node's and undici's error codes along the chain of causes. Pure. Whether a byte can have
// left decides between charging nothing and charging an estimate, so anything doubtful counts as sent.

/** One innermost error of a chain. */
type NetworkFault = { readonly code: string; readonly isBeforeSending: boolean };

/** The codes of the innermost errors; empty when the error is none of the network's. */
export function networkCodes(error: unknown): string[] {
  return faultsOf(error).map(({ code }) => code);
}

/** Whether the connection was never there, so that no byte of the request can have been read by anybody. */
export function isBeforeSending(error: unknown): boolean {
  const faults = faultsOf(error);
  return faults.length > 0 && faults.every((fault) => fault.isBeforeSending);
}

/** Names that were not found, ports that nobody listens on, and peers that did not answer a connect in time. */
const CONNECT_CODES: ReadonlySet<string> = new Set([
  'ECONNREFUSED',
  'ENOTFOUND',
  'EAI_AGAIN',
  'EAI_FAIL',
  'EAI_NODATA',
  'EAI_NONAME',
  'UND_ERR_CONNECT_TIMEOUT',
]);

/** TLS that failed before the client was through with the handshake. Alerts that a peer may send later are not among them. */
const HANDSHAKE_CODES: ReadonlySet<string> = new Set([
  'CERT_HAS_EXPIRED',
  'CERT_NOT_YET_VALID',
  'CERT_REJECTED',
  'CERT_REVOKED',
  'CERT_SIGNATURE_FAILURE',
  'CERT_UNTRUSTED',
  'DEPTH_ZERO_SELF_SIGNED_CERT',
  'ERR_SSL_NO_PROTOCOLS_AVAILABLE',
  'ERR_SSL_PACKET_LENGTH_TOO_LONG',
  'ERR_SSL_UNSUPPORTED_PROTOCOL',
  'ERR_SSL_WRONG_VERSION_NUMBER',
  'ERR_TLS_CERT_ALTNAME_INVALID',
  'ERR_TLS_HANDSHAKE_TIMEOUT',
  'HOSTNAME_MISMATCH',
  'INVALID_CA',
  'INVALID_PURPOSE',
  'SELF_SIGNED_CERT_IN_CHAIN',
  'UNABLE_TO_GET_ISSUER_CERT',
  'UNABLE_TO_GET_ISSUER_CERT_LOCALLY',
  'UNABLE_TO_VERIFY_LEAF_SIGNATURE',
]);

const CONNECT_CALLS: ReadonlySet<unknown> = new Set(['connect', 'getaddrinfo']);

/** Far more than any real chain, and an end for one that bites its tail. */
const DEEPEST = 10;

function faultsOf(error: unknown, depth = 0): NetworkFault[] {
  if (!(error instanceof Error) || depth > DEEPEST) return [];
  // Every address of a host was tried: each try has its own error.
  if (error instanceof AggregateError) return error.errors.flatMap((inner) => faultsOf(inner, depth + 1));
  const inner = faultsOf(error.cause, depth + 1);
  if (inner.length > 0) return inner;
  const code = 'code' in error ? error.code : undefined;
  return typeof code === 'string' ? [{ code, isBeforeSending: failedBeforeSending(error, code) }] : [];
}

function failedBeforeSending(error: Error, code: string): boolean {
  if (CONNECT_CODES.has(code) || HANDSHAKE_CODES.has(code)) return true;
  if ('syscall' in error) return CONNECT_CALLS.has(error.syscall);
  // A peer that hangs up during the handshake: the one reset for which Node's TLS names the host it was talking to.
  return code === 'ECONNRESET' && 'host' in error && 'localAddress' in error;
}
