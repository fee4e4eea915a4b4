// The AI SDK's models, pointed at a simulated provider: one for each dialect and package that the product uses.

import { createAnthropic } from '@ai-sdk/anthropic';
import { createGoogleGenerativeAI } from '@ai-sdk/google';
import { createOpenAI } from '@ai-sdk/openai';
import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import type { LanguageModel } from 'ai';
import type { SimulatedProvider } from '../../../dev/simulated-provider/server.ts';

export const SDK_NAMES = [
  'openai chat',
  'openai responses',
  'openai-compatible',
  'anthropic',
  'google',
] as const;

export type SdkName = (typeof SDK_NAMES)[number];

export function sdkModel(provider: SimulatedProvider, name: SdkName, model: string): LanguageModel {
  const options = { baseURL: `${provider.url}/v1`, apiKey: 'k' };
  switch (name) {
    case 'openai chat':
      return createOpenAI(options).chat(model);
    case 'openai responses':
      return createOpenAI(options)(model);
    case 'openai-compatible':
      return createOpenAICompatible({
        ...options,
        name: 'simulated',
        includeUsage: true,
        supportsStructuredOutputs: true,
      })(model);
    case 'anthropic':
      return createAnthropic(options)(model);
    case 'google':
      return createGoogleGenerativeAI({ ...options, baseURL: `${provider.url}/v1beta` })(model);
    default:
      return name satisfies never;
  }
}
