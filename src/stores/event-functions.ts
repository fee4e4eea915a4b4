// What Redis does in the slot of an event shard, each in one atomic step.

import { loadLibrary } from './redis.ts';

export const eventFunctions = loadLibrary([], ['publish', 'begin-epoch', 'log-ack', 'log-leave'], {
  freeing: ['log-ack', 'log-leave'],
});
