// What Redis does in the slot of a tenant, each in one atomic step (scripts/holds.lua says how a hold and a counter are written there).

import { loadLibrary } from './redis.ts';

export const holdFunctions = loadLibrary(
  ['holds', 'hold-spec'],
  [
    ...(['hold', 'mark-sent', 'renew', 'take', 'release', 'adjust', 'restore'] as const),
    ...(['hydrate-begin', 'hydrate-stop', 'hydrate-write', 'versions', 'holder', 'inspect'] as const),
    ...(['lease', 'expired'] as const),
  ],
  { answeringBytes: ['hold'], freeing: ['release', 'take'] },
);
