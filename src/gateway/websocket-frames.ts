// Events as messages of RFC 6455, framed here and not by the library, so that all readers of a batch share its bytes. Nothing is
// compressed and nothing masked: that is the client's part.

import type { TaskEvent } from '../task/event.ts';
import { jsonOf } from './event-batch.ts';

/** The last frame of a message, and the only one: text. */
const WHOLE_TEXT = 0x81;
/** Lengths that say that the length follows, in two bytes or in eight. */
const IN_TWO_BYTES = 126;
const IN_EIGHT_BYTES = 127;

/** One text message for each event, its envelope as JSON. */
export function encodeMessages(events: readonly TaskEvent[]): Buffer {
  return Buffer.concat(
    events.flatMap((event) => {
      const payload = Buffer.from(jsonOf(event));
      return [headOf(payload.length), payload];
    }),
  );
}

function headOf(length: number): Buffer {
  if (length < IN_TWO_BYTES) return Buffer.from([WHOLE_TEXT, length]);
  if (length <= 0xffff) {
    const head = Buffer.from([WHOLE_TEXT, IN_TWO_BYTES, 0, 0]);
    head.writeUInt16BE(length, 2);
    return head;
  }
  const head = Buffer.from([WHOLE_TEXT, IN_EIGHT_BYTES, 0, 0, 0, 0, 0, 0, 0, 0]);
  head.writeBigUInt64BE(BigInt(length), 2);
  return head;
}
