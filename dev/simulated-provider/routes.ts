// Which path belongs to which endpoint, and in whose words a path that nobody serves is refused.

import type { JsonObject } from './body-fields.ts';
import { anthropicMessages } from './wire/anthropic.ts';
import { chatEndpoint } from './wire/chat-endpoint.ts';
import type { Endpoint, ErrorStyle } from './wire/endpoint.ts';
import { googleGenerate } from './wire/google.ts';
import { openaiChat } from './wire/openai-chat.ts';
import { openaiEmbeddings } from './wire/openai-embeddings.ts';
import { openaiResponses } from './wire/openai-responses.ts';
import { openaiStyle } from './wire/openai-style.ts';

const ENDPOINTS: Record<string, Endpoint> = {
  '/v1/chat/completions': chatEndpoint(openaiChat),
  '/v1/responses': chatEndpoint(openaiResponses),
  '/v1/embeddings': openaiEmbeddings,
  '/v1/messages': chatEndpoint(anthropicMessages),
};
const GOOGLE_PATH = /^\/v1(?:beta)?\/(?:models\/)?(.+):(generateContent|streamGenerateContent)$/;
const GOOGLE_WHOLE = chatEndpoint(googleGenerate(false));
const GOOGLE_STREAM = chatEndpoint(googleGenerate(true));
const MODELS = [
  'simulated-small',
  'simulated-medium',
  'simulated-large',
  'simulated-reasoning',
  'simulated-embedding',
];

/** The endpoint of a path, and the model where the path names it. */
export function endpointFor(url: URL): { endpoint: Endpoint; model: string | undefined } | undefined {
  if (Object.hasOwn(ENDPOINTS, url.pathname)) {
    const endpoint = ENDPOINTS[url.pathname];
    return endpoint && { endpoint, model: undefined };
  }
  const google = GOOGLE_PATH.exec(url.pathname);
  if (google === null) return undefined;
  const model = safeDecode(google[1] ?? '');
  if (google[2] === 'generateContent') return { endpoint: GOOGLE_WHOLE, model };
  // Without alt=sse Google streams one JSON array, which nobody asks for.
  return url.searchParams.get('alt') === 'sse' ? { endpoint: GOOGLE_STREAM, model } : undefined;
}

export function styleFor(url: URL): ErrorStyle {
  if (url.pathname.startsWith('/v1/messages')) return chatStyle('/v1/messages');
  return url.pathname.startsWith('/v1beta') ? GOOGLE_WHOLE.style : openaiStyle;
}

/** `GET /v1/models`: a few names to choose from. Any other name is answered as well. */
export function modelList(): JsonObject {
  return {
    object: 'list',
    data: MODELS.map((id) => ({ id, object: 'model', created: 1_750_000_000, owned_by: 'simulated' })),
  };
}

function chatStyle(path: string): ErrorStyle {
  return ENDPOINTS[path]?.style ?? openaiStyle;
}

function safeDecode(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    // A stray percent sign: the name is taken as it stands.
    return text;
  }
}
