// Models with their prices as calls see them. Lists come and go while a process runs: an attempt is settled by the list that it was
// held with, so the ones before the present one are kept for as long as attempts may need them.

import type { Catalog } from './call.ts';

type Models = Readonly<Record<string, ReturnType<Catalog['modelOf']>>>;

/** Far more than are read within the longest attempt; what an older list priced is settled by the present one. */
const MAX_LISTS = 64;

/** Answers the catalogue of now: one that never changes itself, so that a call may hold on to it. */
export function createCatalogs(present: () => { readonly modelsHash: string; readonly models: Models }) {
  const lists = new Map<string, Catalog>();
  const listOf = (priceHash: string) => lists.get(priceHash);
  return (): Catalog => {
    const { modelsHash: priceHash, models } = present();
    const known = lists.get(priceHash);
    if (known !== undefined) return known;
    const made: Catalog = {
      priceHash,
      modelOf: (id) => (Object.hasOwn(models, id) ? models[id] : undefined),
      listOf,
    };
    lists.set(priceHash, made);
    const [oldest] = lists.keys();
    if (lists.size > MAX_LISTS && oldest !== undefined) lists.delete(oldest);
    return made;
  };
}
