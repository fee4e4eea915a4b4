// Rate limits from the environment: RATE_<PROVIDER or TIER>_{RPM,TPM}, the names of the tuning guide. A name that means no provider
// and no tier is refused, since a limit that nobody applies is worse than none.

import { TIERS } from '../task/input.ts';
import type { Environment } from './environment.ts';
import { type ConfigFault, describeGot } from './fault.ts';
import type { GivenRate } from './limits-file.ts';

type Rows = Readonly<Record<string, GivenRate>>;
type Target = {
  readonly kind: 'providers' | 'tiers';
  readonly name: string;
  readonly dimension: 'rpm' | 'tpm';
};

/** The rows with the environment's limits in them. `providers` of the sources is undefined when models.yaml could not be read. */
export function applyRateOverrides(
  rates: { readonly providers: Rows; readonly tiers: Rows },
  sources: { readonly env: Environment; readonly providers: readonly string[] | undefined },
  faults: ConfigFault[],
): { providers: Rows; tiers: Rows } {
  const rows = { providers: { ...rates.providers }, tiers: { ...rates.tiers } };
  const targets = rateEnvironment([...Object.keys(rates.providers), ...(sources.providers ?? [])]);
  for (const [name, text] of Object.entries(sources.env)) {
    if (!name.startsWith('RATE_') || text === undefined) continue;
    const found = targets.get(name) ?? [];
    const source = `environment ${name}`;
    const [target] = found;
    if (target === undefined || found.length > 1) {
      if (sources.providers !== undefined) faults.push(nameFault(name, found, source));
      continue;
    }
    const value = toLimit(text);
    if (value === undefined) faults.push(valueFault(target, text, source));
    else rows[target.kind][target.name] = { ...rows[target.kind][target.name], [target.dimension]: value };
  }
  return rows;
}

/** What each RATE_ name means, by the names of providers and tiers; more than one meaning is an ambiguity. */
export function rateEnvironment(providers: readonly string[]): ReadonlyMap<string, readonly Target[]> {
  const meanings = new Map<string, Target[]>();
  const add = (kind: Target['kind'], name: string) => {
    for (const dimension of ['rpm', 'tpm'] as const) {
      const variable = `RATE_${name.replaceAll(/[^A-Za-z0-9]/g, '_')}_${dimension}`.toUpperCase();
      meanings.set(variable, [...(meanings.get(variable) ?? []), { kind, name, dimension }]);
    }
  };
  for (const name of new Set(providers)) add('providers', name);
  for (const tier of TIERS) add('tiers', tier);
  return meanings;
}

function toLimit(text: string): number | 'unlimited' | undefined {
  if (text === 'unlimited') return text;
  const value = /^\d{1,13}$/.test(text) ? Number(text) : 0;
  return value >= 1 && value <= 1e12 ? value : undefined;
}

function nameFault(name: string, found: readonly Target[], source: string): ConfigFault {
  if (found.length === 0)
    return { key: 'rates', expected: 'RATE_<provider or tier>_RPM or _TPM', got: name, source };
  const meanings = found.map((target) => `rates.${target.kind}.${target.name}`).join(' and ');
  return { key: 'rates', expected: 'a name that means one row', got: meanings, source };
}

function valueFault(target: Target, text: string, source: string): ConfigFault {
  return {
    key: `rates.${target.kind}.${target.name}.${target.dimension}`,
    expected: 'a whole number from 1 to 1000000000000, or unlimited',
    got: describeGot(text),
    source,
  };
}
