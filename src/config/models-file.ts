// models.yaml: providers, models with their prices, and the candidates of each tier. Read in its whole final shape; what it says is
// turned into integers here, once. Keys of providers come from the environment and never stand in the file.

import { createHash } from 'node:crypto';
import { z } from 'zod';
import { TIERS, type Tier } from '../task/input.ts';
import type { PriceEntry } from '../task/price.ts';
import { type ConfigFault, toFaults } from './fault.ts';
import { priceShape, toPriceEntry } from './price-rows.ts';
import { isMap, toRecord, withoutUndefined } from './records.ts';
import { isUrl } from './setting.ts';
import {
  hasRepeated,
  lazily,
  MODEL_ID,
  matching,
  PROVIDER_NAME,
  parsed,
  wholeNumber,
  word,
} from './shapes.ts';
import { candidateFaults, type PathFault, type TierRoute, tierShape } from './tiers.ts';
import type { LayeredFile } from './yaml-file.ts';

const PROTOCOLS = ['openai', 'anthropic', 'google', 'openai-compatible'] as const;
const CAPABILITIES = ['tools', 'json', 'images', 'documents', 'audio', 'reasoning', 'embeddings'] as const;

/** A provider as the file names it; `providers.ts` looks up its variables. */
export type ProviderEntry = {
  readonly protocol: (typeof PROTOCOLS)[number];
  /** Variables with keys that are used in turn; those that are not set are passed over. */
  readonly apiKeyEnv?: readonly string[];
  readonly baseUrlEnv?: string;
  readonly baseUrl?: string;
};

export type Model = {
  /** `provider/model` */
  readonly id: string;
  readonly provider: string;
  /** What the provider calls it: the id without the provider. */
  readonly name: string;
  readonly tier: Tier;
  readonly contextWindow: number;
  readonly maxOutputTokens: number;
  readonly capabilities: readonly (typeof CAPABILITIES)[number][];
  /** By `validFromMs`, ascending. Empty: the price is not known. */
  readonly prices: readonly PriceEntry[];
};

export type ModelsFile = {
  readonly providers: Readonly<Record<string, ProviderEntry>>;
  readonly models: Readonly<Record<string, Model>>;
  readonly tiers: Readonly<Record<Tier, TierRoute>>;
  /** 16 hex digits that change when a model or a price changes. */
  readonly modelsHash: string;
};

/**
 * Reads the merged file. Undefined when there is a fault.
 * @param reservedNames environment names that no provider may name as its own
 */
export function readModelsFile(
  file: LayeredFile,
  reservedNames: ReadonlySet<string>,
  faults: ConfigFault[],
): ModelsFile | undefined {
  const result = fileShape().safeParse(file.value);
  if (!result.success) {
    faults.push(...toFaults(result.error, file.value, file.locate));
    return undefined;
  }
  const providers = toRecord(Object.entries(result.data.providers));
  const models = toRecord(
    Object.entries(result.data.models).map(([id, given]) => [id, toModel(id, given)] as const),
  );
  const { tiers } = result.data;
  const found = [
    ...reservedFaults(providers, reservedNames),
    ...modelFaults(models, providers),
    ...candidateFaults(tiers, models),
  ];
  faults.push(
    ...found.map(({ path, ...rest }) => ({ key: path.join('.'), ...rest, source: file.locate(path) })),
  );
  return found.length > 0 ? undefined : { providers, models, tiers, modelsHash: hashOf(models) };
}

type GivenModel = z.infer<ReturnType<typeof modelShape>>;

const VARIABLE_EXPECTED = "the name of an environment variable (A-Z 0-9 _) that is not one of Weir's own";

const fileShape = lazily(() => {
  const tier = tierShape();
  return z.strictObject({
    providers: z.record(
      matching('a provider of 1 to 40 characters out of A-Z a-z 0-9 . _ -', PROVIDER_NAME),
      providerShape(),
    ),
    models: z.record(matching('a model as provider/model', MODEL_ID), modelShape()),
    tiers: z.strictObject({ small: tier, medium: tier, large: tier }),
  });
});

function providerShape(): z.ZodType<ProviderEntry> {
  // Somebody who writes the key itself here must not find it in the log.
  const variable = parsed(VARIABLE_EXPECTED, (value) => (isVariable(value) ? value : undefined), true);
  return z
    .strictObject({
      protocol: word(PROTOCOLS),
      apiKeyEnv: parsed(VARIABLE_EXPECTED, toVariables, true).optional(),
      baseUrlEnv: variable.optional(),
      baseUrl: parsed(
        'an http:// or https:// URL',
        (value) => (isHttpUrl(value) ? value : undefined),
        true,
      ).optional(),
    })
    .transform(({ protocol, ...given }, context): ProviderEntry => {
      const { apiKeyEnv, baseUrlEnv, baseUrl } = given;
      const hasAddress = baseUrlEnv !== undefined || baseUrl !== undefined;
      if (!hasAddress && (apiKeyEnv === undefined || protocol === 'openai-compatible'))
        context.addIssue({
          code: 'custom',
          message:
            protocol === 'openai-compatible'
              ? 'baseUrl or baseUrlEnv'
              : 'one of apiKeyEnv, baseUrlEnv and baseUrl',
          params: { hidden: true },
        });
      return { protocol, ...withoutUndefined({ apiKeyEnv, baseUrlEnv, baseUrl }) };
    });
}

function isVariable(value: unknown): value is string {
  return typeof value === 'string' && /^[A-Z][A-Z0-9_]{0,99}$/.test(value);
}

/** One name or a list of them. */
function toVariables(value: unknown): readonly string[] | undefined {
  const names: readonly unknown[] = Array.isArray(value) ? value : [value];
  return names.length > 0 && names.every(isVariable) ? [...new Set(names)] : undefined;
}

function modelShape() {
  return z.strictObject({
    tier: word(TIERS),
    contextWindow: wholeNumber(1, 100_000_000),
    maxOutputTokens: wholeNumber(1, 10_000_000),
    capabilities: z.array(word(CAPABILITIES)).optional(),
    prices: z.array(priceShape()).optional(),
  });
}

function toModel(id: string, given: GivenModel): Model {
  const slash = id.indexOf('/');
  return {
    id,
    provider: id.slice(0, slash),
    name: id.slice(slash + 1),
    tier: given.tier,
    contextWindow: given.contextWindow,
    maxOutputTokens: given.maxOutputTokens,
    capabilities: given.capabilities ?? [],
    prices: (given.prices ?? [])
      .map(toPriceEntry)
      .sort((left, right) => left.validFromMs - right.validFromMs),
  };
}

/** A provider whose key were the variable of a secret of Weir's would be sent that secret. */
function reservedFaults(providers: ModelsFile['providers'], reserved: ReadonlySet<string>): PathFault[] {
  return Object.entries(providers).flatMap(([name, provider]) =>
    (['apiKeyEnv', 'baseUrlEnv'] as const).flatMap((key): PathFault[] =>
      [provider[key] ?? []]
        .flat()
        .filter((variable) => reserved.has(variable))
        .map((variable) => ({ path: ['providers', name, key], expected: VARIABLE_EXPECTED, got: variable })),
    ),
  );
}

function modelFaults(
  models: Readonly<Record<string, Model>>,
  providers: ModelsFile['providers'],
): PathFault[] {
  return Object.values(models).flatMap((model): PathFault[] => {
    const path = ['models', model.id];
    const faults: PathFault[] = [];
    if (providers[model.provider] === undefined)
      faults.push({
        path,
        expected: `a provider out of ${Object.keys(providers).join(', ')}`,
        got: `"${model.provider}"`,
      });
    if (model.maxOutputTokens > model.contextWindow)
      faults.push({
        path: [...path, 'maxOutputTokens'],
        expected: `at most contextWindow (${model.contextWindow})`,
        got: `${model.maxOutputTokens}`,
      });
    if (hasRepeated(model.prices.map((entry) => entry.validFromMs)))
      faults.push({ path: [...path, 'prices'], expected: 'one entry for each validFrom', got: 'several' });
    if (model.prices.some((entry) => hasRepeated(entry.above.map((tier) => tier.inputTokens))))
      faults.push({
        path: [...path, 'prices'],
        expected: 'one row of above for each inputTokens',
        got: 'several',
      });
    return faults;
  });
}

function isHttpUrl(value: unknown): value is string {
  return typeof value === 'string' && isUrl(value, ['http:', 'https:']);
}

function hashOf(models: Readonly<Record<string, Model>>): string {
  return createHash('sha256').update(toCanonicalJson(models)).digest('hex').slice(0, 16);
}

/** JSON with sorted keys and bigints as texts, so that equal models have equal hashes whatever the order of their lines. */
function toCanonicalJson(value: unknown): string {
  return JSON.stringify(value, (_key, inner: unknown) => {
    if (typeof inner === 'bigint') return inner.toString();
    if (!isMap(inner)) return inner;
    return Object.fromEntries(Object.entries(inner).sort(([left], [right]) => (left < right ? -1 : 1)));
  });
}
