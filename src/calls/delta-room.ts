// How much streamed text waits in this process for a Redis that is away or slow: bounded for each task and for all together. Text that
// finds no room is dropped for readers, never the answer itself.

/** What one task may have waiting; many small batches cost more than their text. */
const TASK_BATCHES = 1_000;
const TASK_BYTES = 1_000_000;
const PROCESS_BYTES = 64_000_000;

type Held = { batches: number; bytes: number };

export type DeltaRoom = {
  /** Takes room for a piece of text, in a batch of its own or in one that waits already. False: there is none, and nothing was taken. */
  take(taskId: string, bytes: number, isNewBatch: boolean): boolean;
  giveBack(taskId: string, batches: number, bytes: number): void;
  /** Of all tasks. */
  heldBytes(): number;
};

/** One for all calls of a process. */
export function createDeltaRoom(processBytes = PROCESS_BYTES): DeltaRoom {
  const tasks = new Map<string, Held>();
  let all = 0;
  return {
    take(taskId, bytes, isNewBatch) {
      const held = tasks.get(taskId) ?? { batches: 0, bytes: 0 };
      const batches = held.batches + (isNewBatch ? 1 : 0);
      if (batches > TASK_BATCHES || held.bytes + bytes > TASK_BYTES || all + bytes > processBytes)
        return false;
      held.batches = batches;
      held.bytes += bytes;
      all += bytes;
      tasks.set(taskId, held);
      return true;
    },
    giveBack(taskId, batches, bytes) {
      const held = tasks.get(taskId);
      if (held === undefined) return;
      held.batches -= batches;
      held.bytes -= bytes;
      all -= bytes;
      if (held.batches === 0) tasks.delete(taskId);
    },
    heldBytes: () => all,
  };
}
