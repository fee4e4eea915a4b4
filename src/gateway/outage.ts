// Tells a store that is away from a request or a program that is wrong. Clients of databases throw plain errors for a lost connection;
// only at the store itself is it known that they can mean nothing else.

export class StoreAway extends Error {
  constructor(cause: unknown) {
    super('a store does not answer', { cause });
    this.name = 'StoreAway';
  }
}

type Methods = Record<string, unknown>;

/** The same store, whose asynchronous methods throw `StoreAway` for what `isAway` takes for an outage. */
export function tellingOutage<Store extends object>(
  store: Store,
  isAway: (error: unknown) => boolean,
): Store {
  const wrapped = Object.entries(store as Methods).map(([name, method]) => {
    if (typeof method !== 'function') return [name, method];
    const call = (...args: unknown[]) => {
      const answer: unknown = method.apply(store, args);
      if (!(answer instanceof Promise)) return answer;
      return answer.catch((error: unknown) => {
        throw isAway(error) && !isProgramError(error) ? new StoreAway(error) : error;
      });
    };
    return [name, call];
  });
  return Object.fromEntries(wrapped) as Store; // the same names with functions of the same types
}

function isProgramError(error: unknown): boolean {
  return (
    error instanceof TypeError ||
    error instanceof RangeError ||
    error instanceof SyntaxError ||
    error instanceof ReferenceError
  );
}
