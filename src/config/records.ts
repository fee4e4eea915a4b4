// Maps of keys that somebody else chose: those of YAML files, and the records made of them.

/** Whether a value is a map of keys, as YAML reads one. */
export function isMap(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/**
 * A map whose keys were chosen by somebody else. It has no prototype, so that a provider called `constructor` is one that does not
 * exist.
 */
export function toRecord<V>(entries: Iterable<readonly [string, V]>): Record<string, V> {
  return Object.assign(Object.create(null), Object.fromEntries(entries));
}

/** An object without the keys whose value is undefined. */
export function withoutUndefined<T extends object>(value: T): { [K in keyof T]?: Exclude<T[K], undefined> } {
  return Object.fromEntries(Object.entries(value).filter(([, inner]) => inner !== undefined)) as {
    [K in keyof T]?: Exclude<T[K], undefined>; // exactly the entries that are not undefined
  };
}
