// The wire protocols that models are reached over, and the AI SDK's model object for each. Keys and addresses are always passed
// on explicitly: left out, the AI SDK would read the environment behind the configuration's back.

import '../config/empty-variables.ts';

import { createAnthropic } from '@ai-sdk/anthropic';
import { createGoogle } from '@ai-sdk/google';
import { createOpenAI } from '@ai-sdk/openai';
import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import type { LanguageModel } from 'ai';

export type Protocol = 'openai' | 'anthropic' | 'google' | 'openai-compatible';

/** A provider as the configuration resolved it. */
export type ProviderAccess = {
  readonly protocol: Protocol;
  /** Keys that may be used in turn; none where it needs none. */
  readonly apiKeys?: readonly string[];
  /** Without one the protocol's own public address is meant. */
  readonly baseUrl?: string;
  readonly available: boolean;
};

/** One model of a provider, with the key that its next request takes. */
export type ModelAccess = {
  /** Of the provider, for the AI SDK's messages. */
  readonly name: string;
  readonly provider: ProviderAccess;
  /** As the provider calls it; may hold slashes. */
  readonly modelId: string;
  readonly apiKey: string | undefined;
};

/** The model object for one request. Making one costs some closures, no connection. */
export function createModel(
  { name, provider, modelId, ...access }: ModelAccess,
  fetch: typeof globalThis.fetch,
): LanguageModel {
  // An empty key where none is needed; undefined would be looked up in the environment.
  const apiKey = access.apiKey ?? '';
  const baseURL = baseUrlOf(provider);
  switch (provider.protocol) {
    case 'openai':
      // Chat completions, not responses: the address may be any server that speaks them.
      return createOpenAI({ apiKey, baseURL, fetch }).chat(modelId);
    case 'anthropic':
      return createAnthropic({ apiKey, baseURL, fetch })(modelId);
    case 'google':
      return createGoogle({ apiKey, baseURL, fetch })(modelId);
    case 'openai-compatible':
      return createOpenAICompatible({
        name,
        baseURL,
        fetch,
        includeUsage: true,
        supportsStructuredOutputs: true,
        ...(access.apiKey === undefined ? {} : { apiKey }),
      })(modelId);
    default:
      return provider.protocol satisfies never;
  }
}

const PUBLIC_URLS: Readonly<Record<Protocol, string>> = {
  openai: 'https://api.openai.com/v1',
  anthropic: 'https://api.anthropic.com/v1',
  google: 'https://generativelanguage.googleapis.com/v1beta',
  // Has none; the configuration calls such a provider without an address not available.
  'openai-compatible': '',
};

/** What Anthropic's and Google's own clients append to an address without a path. */
const DEFAULT_PATHS: Readonly<Partial<Record<Protocol, string>>> = { anthropic: '/v1', google: '/v1beta' };

function baseUrlOf({ protocol, baseUrl }: ProviderAccess): string {
  if (baseUrl === undefined) return PUBLIC_URLS[protocol];
  const path = DEFAULT_PATHS[protocol];
  return path !== undefined && new URL(baseUrl).pathname === '/' ? new URL(path, baseUrl).href : baseUrl;
}
