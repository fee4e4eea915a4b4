// Every request that reached this provider, with what it took: the oracle that a ledger is compared with. An entry is there from
// the moment the request arrives, so one whose client died is never missing. Prompts and answers must not get in.

import type { WriteStream } from 'node:fs';

type Outcome = 'completed' | 'client_gone' | 'cut' | 'error' | 'hung';

/** Tokens; `inputTokens` and `outputTokens` are totals, the others are parts of them. */
export type LoggedUsage = {
  readonly inputTokens: number;
  readonly cachedInputTokens: number;
  readonly cacheWriteTokens: number;
  readonly outputTokens: number;
  readonly reasoningTokens: number;
};

export type LoggedRequest = {
  /** Counts up from 1 and is never used again, not even after the log was cleared. */
  readonly n: number;
  readonly id: string;
  readonly attemptKey: string | null;
  readonly path: string;
  readonly model: string | null;
  /** ISO time of arrival. */
  readonly at: string;
  /** HTTP status as far as one was sent. */
  readonly status: number | null;
  /** What the provider took so far: nothing for an error status, what was sent for a stream that ended early. */
  readonly usage: LoggedUsage;
  /** null while the request is served. */
  readonly outcome: Outcome | null;
  readonly outputTokensSent: number;
};

/** The part of an entry that its request changes while it is served. */
export type OpenEntry = {
  readonly current: LoggedRequest;
  update(change: Partial<Pick<LoggedRequest, 'model' | 'status' | 'usage' | 'outputTokensSent'>>): void;
  /** The first outcome stays: what this provider did on purpose comes before what the socket says afterwards. */
  end(outcome: Outcome): void;
};

const KEPT = 200_000;
const NOTHING: LoggedUsage = {
  inputTokens: 0,
  cachedInputTokens: 0,
  cacheWriteTokens: 0,
  outputTokens: 0,
  reasoningTokens: 0,
};

export type RequestLog = ReturnType<typeof createRequestLog>;

/** `mirror` takes one JSON line when a request arrives and one when it ends. */
export function createRequestLog(mirror?: WriteStream) {
  let entries: OpenEntry[] = [];
  let last = 0;

  const write = (entry: LoggedRequest) => mirror?.write(`${JSON.stringify(entry)}\n`);

  return {
    open(fields: Pick<LoggedRequest, 'id' | 'attemptKey' | 'path'>): OpenEntry {
      last += 1;
      const entry = createEntry({ n: last, ...fields, at: new Date().toISOString() }, write);
      entries.push(entry);
      // Whole thousands at once: taking one from the front of a long array at every request would copy it each time.
      if (entries.length > KEPT + 1_000) entries = entries.slice(-KEPT);
      return entry;
    },
    /** Entries with a number above `n`, oldest first. */
    since(n: number): LoggedRequest[] {
      return entries.map((entry) => entry.current).filter((entry) => entry.n > n);
    },
    /** Requests that are being served stay away from the log afterwards. */
    clear(): void {
      entries = [];
    },
    get last(): number {
      return last;
    },
  };
}

function createEntry(
  fields: Pick<LoggedRequest, 'n' | 'id' | 'attemptKey' | 'path' | 'at'>,
  write: (entry: LoggedRequest) => void,
): OpenEntry {
  let current: LoggedRequest = {
    ...fields,
    model: null,
    status: null,
    usage: NOTHING,
    outcome: null,
    outputTokensSent: 0,
  };
  write(current);
  return {
    get current() {
      return current;
    },
    update(change) {
      current = { ...current, ...change };
    },
    end(outcome) {
      if (current.outcome !== null) return;
      current = { ...current, outcome };
      write(current);
    },
  };
}
