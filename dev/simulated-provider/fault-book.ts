// Decides which fault a request meets. Three places can ask for one: a header, a marker in the prompt, and the rules of the control
// endpoint. Choosing and counting happen in one synchronous step, so that two requests never share the last of `times`.

import { parseObject } from './body-fields.ts';
import type { Chance } from './duration.ts';
import { type Fault, type FaultRule, readFault } from './fault.ts';

/** `[[sim:{"status":429,"retryAfterMs":1500,"times":1}]]` */
const MARKER = { start: '[[sim:{', end: '}]]' };
const COUNTED_TEXTS = 10_000;

export type FaultBook = ReturnType<typeof createFaultBook>;

export type FaultQuestion = {
  readonly model: string;
  readonly path: string;
  readonly prompt: string;
  /** Value of the header `x-sim-fault`. */
  readonly header: string | undefined;
};

export function createFaultBook(chance: Chance) {
  let rules: { readonly rule: FaultRule; applied: number }[] = [];
  const applied = new Map<string, number>();

  function happens(fault: Fault, soFar: number): boolean {
    if (fault.times !== undefined && soFar >= fault.times) return false;
    return fault.errorRate === undefined || chance() < fault.errorRate;
  }

  function fromText(text: string, what: string): Fault {
    const fault = readFault(parseObject(text, what), what);
    const soFar = applied.get(text) ?? 0;
    if (!happens(fault, soFar)) return {};
    applied.delete(text);
    applied.set(text, soFar + 1);
    const oldest = applied.keys().next();
    if (applied.size > COUNTED_TEXTS && oldest.done !== true) applied.delete(oldest.value);
    return fault;
  }

  function fromMarkers(prompt: string): Fault {
    for (const { fault: text } of markersIn(prompt)) {
      const fault = fromText(text, 'the marker [[sim:…]] in the prompt');
      if (Object.keys(fault).length > 0) return fault;
    }
    return {};
  }

  function fromRules(question: FaultQuestion): Fault {
    const found = rules.find(
      (each) => matches(each.rule, question) && happens(each.rule.fault, each.applied),
    );
    if (found === undefined) return {};
    found.applied += 1;
    return found.rule.fault;
  }

  return {
    /**
     * The fault of one request. Each place gives its first fault that still applies; where two places set the same field, the
     * header goes before the marker and the marker before the rules. Throws an error 400 for a header or marker that cannot be read.
     */
    select(question: FaultQuestion): Fault {
      const rule = fromRules(question);
      const marker = fromMarkers(question.prompt);
      const header = question.header === undefined ? {} : fromText(question.header, 'the header x-sim-fault');
      return { ...given(rule), ...given(marker), ...given(header) };
    },
    replaceRules(next: readonly FaultRule[]): void {
      rules = next.map((rule) => ({ rule, applied: 0 }));
    },
    /** Removes all rules and forgets how often each marker and header was met. */
    clear(): void {
      rules = [];
      applied.clear();
    },
    list() {
      return rules.map((each) => ({ match: each.rule.match, ...each.rule.fault, applied: each.applied }));
    },
  };
}

/** A prompt without its markers: what answers are made from. */
export function withoutMarkers(text: string): string {
  let kept = '';
  let from = 0;
  for (const marker of markersIn(text)) {
    kept += `${text.slice(from, marker.from)} `;
    from = marker.to;
  }
  return kept + text.slice(from);
}

/** By searching forward only: a prompt full of beginnings without an end must not be read again from each of them. */
function markersIn(text: string): { from: number; to: number; fault: string }[] {
  const found: { from: number; to: number; fault: string }[] = [];
  for (let at = 0; ; ) {
    const from = text.indexOf(MARKER.start, at);
    const end = from < 0 ? -1 : text.indexOf(MARKER.end, from);
    if (end < 0) return found;
    at = end + MARKER.end.length;
    found.push({ from, to: at, fault: text.slice(from + MARKER.start.length - 1, end + 1) });
  }
}

function matches(rule: FaultRule, question: FaultQuestion): boolean {
  const { model, path, promptContains } = rule.match;
  if (model !== undefined && model !== question.model) return false;
  if (path !== undefined && !question.path.startsWith(path)) return false;
  return promptContains === undefined || question.prompt.includes(promptContains);
}

function given(fault: Fault): Fault {
  return Object.fromEntries(Object.entries(fault).filter(([, value]) => value !== undefined));
}
