// A provider with a log of its own: what reached it, and what each request took. Its answers, failures and pauses come from the seed.

import { LlmError, type LlmErrorFields } from '../../src/llm/error.ts';
import type { LanguageModels, ModelReply, ModelRequest } from '../../src/llm/language-model.ts';
import { NO_USAGE, type Usage } from '../../src/task/usage.ts';
import type { Book } from './book.ts';
import type { Process, World } from './world.ts';

/** Nano-USD per token; small, so that a run can be read. */
export const INPUT_NANO = 1n;
export const OUTPUT_NANO = 2n;
/** What every request of a run really has as input, by any count. */
export const INPUT_TOKENS = 6;

type Plan = 'answers' | 'tells no usage' | 'throttles' | 'breaks' | 'is cut' | 'says nothing';

const PLANS: readonly Plan[] = [
  ...Array<Plan>(8).fill('answers'),
  'tells no usage',
  'throttles',
  'breaks',
  'is cut',
  'says nothing',
];
const DELAYS_MS = [5, 5, 60, 400, 400, 1_200, 1_200, 2_500, 5_000] as const;

export function createProvider(world: World, book: Book, process: Process): LanguageModels {
  const { random } = world;
  return {
    has: () => true,
    stream: async (request) => {
      const sent = { maxOutputTokens: request.maxOutputTokens, issuedAtMs: world.nowMs };
      // Written before anything is awaited: the request is under way from here on.
      await world
        .op(process, 'provider', `request ${request.attemptKey}`, () => {
          if (request.signal.aborted) throw failed(request, { kind: 'aborted', stage: 'unsent' });
          book.sends(process, request.attemptKey, sent);
        })
        .catch((error: unknown) => {
          if (error instanceof LlmError) throw error;
          // The answer was lost: nobody knows whether the request arrived. A connection that never came about is known, though.
          const arrived = book.requests.has(request.attemptKey);
          throw failed(request, { kind: 'connection', stage: arrived ? 'unanswered' : 'unsent' });
        });
      return answer(world, book, request, random.pick(PLANS));
    },
  };
}

async function answer(world: World, book: Book, request: ModelRequest, plan: Plan): Promise<ModelReply> {
  const { random } = world;
  // Never more than it was asked for, as providers keep to it.
  const words = Array.from({ length: Math.min(random.int(9), request.maxOutputTokens) }, () => 'word ');
  let text = '';
  const stop = (fields: LlmErrorFields) => {
    tell(
      book,
      request,
      fields.stage === 'unanswered' ? undefined : fields.stage === 'answered' ? 0n : costOf(text),
    );
    return failed(request, { ...fields, outputText: text });
  };
  const pause = async () => {
    await wait(random.pick(DELAYS_MS), request.signal);
    if (request.signal.aborted) {
      // Closed by us: what it took is what was heard of it, if anything was.
      tell(book, request, text === '' ? undefined : costOf(text));
      throw failed(request, {
        kind: 'aborted',
        stage: text === '' ? 'unanswered' : 'output',
        outputText: text,
      });
    }
  };
  await pause();
  if (plan === 'throttles')
    throw stop({ kind: 'rate_limited', stage: 'answered', status: 429, retryAfterMs: 500 });
  if (plan === 'breaks') throw stop({ kind: 'unknown', stage: 'answered', status: 500 });
  if (plan === 'says nothing') throw stop({ kind: 'connection', stage: 'unanswered' });
  while (words.length > 0) {
    const piece = words.splice(0, 1 + random.int(4)).join('');
    text += piece;
    request.onProgress?.();
    request.onText(piece);
    await pause();
  }
  if (plan === 'is cut')
    throw stop(text === '' ? { kind: 'connection', stage: 'unanswered' } : { kind: 'cut', stage: 'output' });
  tell(book, request, costOf(text));
  const usage = plan === 'tells no usage' ? undefined : usageOf(text);
  return { text, outputText: text, finishReason: 'stop', usage };
}

/** What the request's worker now knows of its cost. */
function tell(book: Book, request: ModelRequest, cost: bigint | undefined): void {
  const logged = book.requests.get(request.attemptKey);
  if (logged !== undefined) logged.told = cost;
}

export function countWords(text: string): number {
  return text.split(' ').filter((word) => word !== '').length;
}

function usageOf(text: string): Usage {
  return { ...NO_USAGE, inputTokens: INPUT_TOKENS, outputTokens: countWords(text) };
}

function costOf(text: string): bigint {
  return BigInt(INPUT_TOKENS) * INPUT_NANO + BigInt(countWords(text)) * OUTPUT_NANO;
}

/** Ends early, and without an error, when the request is aborted. */
function wait(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) return resolve();
    const onAbort = () => {
      clearTimeout(timer);
      resolve();
    };
    const timer = setTimeout(() => {
      signal.removeEventListener('abort', onAbort);
      resolve();
    }, ms);
    signal.addEventListener('abort', onAbort, { once: true });
  });
}

function failed({ model, attemptKey }: ModelRequest, fields: LlmErrorFields): LlmError {
  return new LlmError(`${model}: ${fields.kind} (attempt ${attemptKey})`, fields);
}
