// What was seen of one attempt on the wire, beneath the AI SDK: it buffers first chunks, hides statuses inside errors and cannot
// tell a connection that was never there from one that was lost. Sends nothing of its own.

/** Facts of one attempt; they only ever grow. */
export type Exchange = {
  /** The request was handed to `fetch`. */
  readonly isRequested: boolean;
  readonly status: number | undefined;
  readonly headers: Headers | undefined;
  /** Why `fetch` rejected, or the body broke. */
  readonly networkError: unknown;
};

/**
 * A `fetch` for one attempt that records what it sees. Connections come from Node's own pool, which keeps them alive between
 * requests.
 * @param onProgress called for the status line and every piece of the body
 * @param onHeaders called once, before that
 */
export function createExchange(
  onProgress: () => void,
  onHeaders: (headers: Headers) => void = () => undefined,
): {
  readonly exchange: Exchange;
  readonly fetch: typeof globalThis.fetch;
} {
  const exchange: { -readonly [K in keyof Exchange]: Exchange[K] } = {
    isRequested: false,
    status: undefined,
    headers: undefined,
    networkError: undefined,
  };
  const watchedFetch: typeof globalThis.fetch = async (input, init) => {
    exchange.isRequested = true;
    // A redirect would be a second request under the same attempt, with the key sent to wherever it points.
    const response = await globalThis
      .fetch(input, { ...init, redirect: 'manual' })
      .catch((error: unknown) => {
        exchange.networkError = error;
        throw error;
      });
    exchange.status = response.status;
    exchange.headers = response.headers;
    onHeaders(response.headers);
    onProgress();
    if (!response.ok || response.body === null) return response;
    const body = watch(response.body, onProgress, (error) => {
      exchange.networkError = error;
    });
    const { status, statusText, headers } = response;
    return new Response(body, { status, statusText, headers });
  };
  return { exchange, fetch: watchedFetch };
}

type Bytes = Uint8Array<ArrayBuffer>;

function watch(
  body: ReadableStream<Bytes>,
  onChunk: () => void,
  onBroken: (error: unknown) => void,
): ReadableStream<Bytes> {
  const reader = body.getReader();
  return new ReadableStream<Bytes>({
    async pull(controller) {
      const { done, value } = await reader.read().catch((error: unknown) => {
        onBroken(error);
        throw error;
      });
      if (done) return controller.close();
      onChunk();
      controller.enqueue(value);
    },
    cancel: (reason) => reader.cancel(reason),
  });
}
