// Talks to a simulated provider over plain fetch and reads its streams event by event, so that tests see the wire and no SDK.

import type { LoggedRequest } from '../../../dev/simulated-provider/request-log.ts';
import type { SimulatedProvider } from '../../../dev/simulated-provider/server.ts';

export type SseEvent = { readonly event: string | undefined; readonly data: string };

type Sent = { readonly headers?: Record<string, string>; readonly signal?: AbortSignal };

export function post(
  provider: SimulatedProvider,
  path: string,
  body: unknown,
  sent: Sent = {},
): Promise<Response> {
  return fetch(`${provider.url}${path}`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', ...sent.headers },
    body: typeof body === 'string' ? body : JSON.stringify(body),
    ...(sent.signal ? { signal: sent.signal } : {}),
  });
}

export async function control(provider: SimulatedProvider, method: string, path: string, body?: unknown) {
  const response = await fetch(`${provider.url}/control/${path}`, {
    method,
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  });
  // biome-ignore lint/suspicious/noExplicitAny: a test reads what it expects and fails where it is not there
  return { status: response.status, json: (await response.json()) as any };
}

/** A chat request with one user message. */
export function chat(text: string, more: Record<string, unknown> = {}): Record<string, unknown> {
  return { model: 'simulated-small', messages: [{ role: 'user', content: text }], ...more };
}

// biome-ignore lint/suspicious/noExplicitAny: a test reads what it expects and fails where it is not there
export async function json(response: Response): Promise<any> {
  return await response.json();
}

/** Reads a stream to its end. `failed` is set when the connection broke before that. */
export async function readSse(response: Response): Promise<{ events: SseEvent[]; failed: boolean }> {
  let text = '';
  let failed = false;
  const decoder = new TextDecoder();
  try {
    for await (const bytes of response.body ?? []) text += decoder.decode(bytes, { stream: true });
  } catch {
    // Which error it is depends on the client; that there was one is what a test asks about.
    failed = true;
  }
  return { events: eventsIn(text), failed };
}

function eventsIn(text: string): SseEvent[] {
  return text
    .split(/\r?\n\r?\n/)
    .filter((block) => block.includes('data: '))
    .map((block) => ({
      event: /^event: (.*)$/m.exec(block)?.[1],
      data: /^data: (.*)$/m.exec(block)?.[1] ?? '',
    }));
}

/** The text of an OpenAI stream. */
export function textOfChat(events: readonly SseEvent[]): string {
  return events
    .filter((event) => event.data !== '[DONE]')
    .map((event) => JSON.parse(event.data).choices?.[0]?.delta?.content ?? '')
    .join('');
}

/** Waits until the condition holds and answers with what it returned. */
export async function eventually<T>(condition: () => T | undefined | Promise<T | undefined>): Promise<T> {
  const until = Date.now() + 5_000;
  for (;;) {
    const value = await condition();
    if (value !== undefined) return value;
    if (Date.now() > until) throw new Error('the condition did not hold within 5 s');
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

/** The log entry of a request, once it has an outcome. */
export function ended(provider: SimulatedProvider, n: number): Promise<LoggedRequest> {
  return eventually(() => provider.requests().find((entry) => entry.n === n && entry.outcome !== null));
}
