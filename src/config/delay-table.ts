// The table of back-pressure as a setting: from which share of a limit on how long a call is delayed. One text, so that an environment
// variable and a file hold it in the same form.

import { z } from 'zod';
import { parseDuration } from './durations.ts';
import { type Setting, text } from './setting.ts';
import { lazily, parsed } from './shapes.ts';

/** From the share `at` of a limit on, `ms` milliseconds. */
export type DelayStep = { readonly at: number; readonly ms: number };

const EXPECTED =
  'up to 20 steps such as "0.8:50ms, 0.9:750ms": shares above 0 and below 1 that rise, delays up to 10m that do not fall';
const MAX_STEPS = 20;
const MAX_DELAY_MS = 600_000;

/** Resolves to the steps in rising order; an empty text, in a file only, to none. */
export function delayTable(env: string): Setting<readonly DelayStep[], 'value'> {
  return {
    ...text(env, EXPECTED, () => true),
    given: lazily(() => parsed(EXPECTED, toSteps)),
    text: lazily(() => z.string()),
  };
}

function toSteps(value: unknown): readonly DelayStep[] | undefined {
  if (typeof value !== 'string') return undefined;
  if (value.trim() === '') return [];
  const steps = value.split(',').map((part) => toStep(part.trim()));
  const isRising = steps.every((step, index) => {
    const before = steps[index - 1];
    return step !== undefined && (before === undefined || (step.at > before.at && step.ms >= before.ms));
  });
  return isRising && steps.length <= MAX_STEPS ? steps.filter((step) => step !== undefined) : undefined;
}

function toStep(part: string): DelayStep | undefined {
  const [, share, delay = ''] = /^(0\.\d{1,9}):([^:]+)$/.exec(part) ?? [];
  const [at, ms] = [Number(share), parseDuration(delay)];
  return at > 0 && ms !== undefined && ms <= MAX_DELAY_MS ? { at, ms } : undefined;
}
