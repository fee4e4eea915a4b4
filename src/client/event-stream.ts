// Reads a body of text/event-stream as the HTML standard says: CR, LF and CRLF, chunks cut anywhere, a BOM, comments, several data lines.
// It knows nothing of tasks and opens no connection. What it holds of an event that is not complete is bounded.

export type ServerSentEvent = {
  /** The stream's last `id` so far, of this event or of one before; empty when there was none. */
  readonly id: string;
  readonly type: string;
  readonly data: string;
};

export type EventStreamParser = {
  /**
   * Bytes as they came; answers the events that they complete.
   * @throws RangeError when one event is longer than any that a gateway sends
   */
  push(bytes: Uint8Array): readonly ServerSentEvent[];
  /** The last `retry` of the stream: how soon to come back, in milliseconds. */
  readonly retryMs: number | undefined;
};

/** A whole answer travels in one event; the longest that a model gives are some megabytes. */
const MAX_EVENT_CHARS = 32 * 1_048_576;

/** A parser of one response body. An event whose closing blank line never comes is not answered, nor is its id. */
export function createEventStreamParser(maxEventChars = MAX_EVENT_CHARS): EventStreamParser {
  const decoder = new TextDecoder(); // takes a leading BOM away
  const lines = createLineSplitter();
  let data: string[] = [];
  let dataChars = 0;
  let type = '';
  let nextId = '';
  let retryMs: number | undefined;
  const dispatch = (): ServerSentEvent | undefined => {
    const event = { id: nextId, type: type === '' ? 'message' : type, data: data.join('\n') };
    const isEvent = data.length > 0;
    data = [];
    dataChars = 0;
    type = '';
    return isEvent ? event : undefined;
  };
  const read = (line: string): void => {
    const colon = line.indexOf(':');
    if (colon === 0) return; // a comment, such as the heartbeat
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? '' : line.slice(line[colon + 1] === ' ' ? colon + 2 : colon + 1);
    if (field === 'data') {
      data.push(value);
      dataChars += value.length + 1;
    } else if (field === 'event') type = value;
    else if (field === 'id' && !value.includes('\u0000')) nextId = value;
    else if (field === 'retry' && /^\d{1,15}$/.test(value)) retryMs = Number(value);
  };
  return {
    push(bytes) {
      const events: ServerSentEvent[] = [];
      for (const line of lines.push(decoder.decode(bytes, { stream: true }))) {
        if (line !== '') {
          read(line);
          continue;
        }
        const event = dispatch();
        if (event !== undefined) events.push(event);
      }
      if (dataChars + lines.heldChars() > maxEventChars)
        throw new RangeError(`an event of more than ${maxEventChars} characters`);
      return events;
    },
    get retryMs() {
      return retryMs;
    },
  };
}

/** Answers the lines that a piece of text completes. A CR ends its line at once; an LF right behind it, even in the next piece, is its own. */
function createLineSplitter() {
  const pieces: string[] = []; // of the line that is not complete, joined once: a long line in many pieces stays linear
  let held = 0;
  let isAfterCr = false;
  return {
    heldChars: () => held,
    push(text: string): readonly string[] {
      const rest = isAfterCr && text.startsWith('\n') ? text.slice(1) : text;
      if (text !== '') isAfterCr = text.endsWith('\r');
      const [first = '', ...others] = rest.split(/\r\n|\r|\n/);
      pieces.push(first);
      held += first.length;
      const last = others.pop();
      if (last === undefined) return [];
      const line = pieces.join('');
      pieces.length = 0;
      pieces.push(last);
      held = last.length;
      return [line, ...others];
    },
  };
}
