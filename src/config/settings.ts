// The settings of default.yaml through their four layers: default < file < environment < flag. Every layer is checked where it is
// read, so that a fault knows its place; convict then lays them over each other and checks the result once more.

import convict from 'convict';
import { formatDuration } from './durations.ts';
import { type Environment, readSecret } from './environment.ts';
import { type ConfigFault, describeGot, describeType } from './fault.ts';
import { isMap } from './records.ts';
import { schema } from './schema.ts';
import { isSetting, type Resolved, type Setting, type SettingTree } from './setting.ts';
import type { YamlFile } from './yaml-file.ts';

export type Settings = Resolved<typeof schema>;

/** Values of one layer by dotted key, as a file would give them, each with the place it came from. */
type Layer = ReadonlyMap<string, { readonly value: unknown; readonly source: string }>;

type SettingSources = {
  readonly shipped: YamlFile;
  readonly overlay: YamlFile | undefined;
  readonly env: Environment;
  /** By dotted key; texts are read like environment text. */
  readonly flags: Readonly<Record<string, unknown>>;
};

/** Settings by dotted key. */
const settings: ReadonlyMap<string, Setting<unknown>> = new Map(flatten(schema));

/** The environment names of all settings, those of files with secrets among them. */
export function settingEnvironmentNames(): string[] {
  return [...settings.values()].flatMap(({ env, secret }) => (secret ? [env, `${env}_FILE`] : [env]));
}

/** Reads, checks and resolves all settings. Undefined when there is a fault. */
export function readSettings(sources: SettingSources, faults: ConfigFault[]): Settings | undefined {
  const found: ConfigFault[] = [];
  const shipped = readFileLayer(sources.shipped, found);
  for (const [key, setting] of settings)
    if (!shipped.has(key) && !found.some((fault) => fault.key === key))
      found.push({
        key,
        expected: setting.expected,
        got: 'nothing',
        source: sources.shipped.place([]).source,
      });
  const layers = [
    shipped,
    sources.overlay === undefined ? new Map() : readFileLayer(sources.overlay, found),
    readEnvironmentLayer(sources.env, found),
    readFlagLayer(sources.flags, found),
  ] as const;
  if (found.length === 0) {
    const resolved = resolveTree(schema, layOver(layers)) as Settings; // resolveTree walks the very tree that Settings is made of
    found.push(...crossFaults(resolved, layers));
    if (found.length === 0) return resolved;
  }
  faults.push(...found);
  return undefined;
}

function readFileLayer(file: YamlFile, faults: ConfigFault[]): Layer {
  const layer = new Map<string, { value: unknown; source: string }>();
  const visit = (tree: SettingTree, value: unknown, path: readonly string[]) => {
    const source = file.place(path).source;
    // A section whose lines are all commented out is null.
    if (value === null || value === undefined) return;
    if (!isMap(value)) {
      faults.push({
        key: path.join('.'),
        expected: `a map with ${Object.keys(tree).join(', ')}`,
        got: describeGot(value, true),
        source,
      });
      return;
    }
    for (const [name, inner] of Object.entries(value)) {
      const at = [...path, name];
      const node = Object.hasOwn(tree, name) ? tree[name] : undefined;
      if (node === undefined) faults.push(unknownKey(at.join('.'), inner, file.place(at).source));
      else if (isSetting(node))
        admit(
          layer,
          { key: at.join('.'), setting: node, value: inner, source: file.place(at).source },
          faults,
        );
      else visit(node, inner, at);
    }
  };
  visit(schema, file.value, []);
  return layer;
}

function readEnvironmentLayer(env: Environment, faults: ConfigFault[]): Layer {
  const layer = new Map<string, { value: unknown; source: string }>();
  for (const [key, setting] of settings) {
    const raw = setting.secret
      ? readSecret(env, setting.env, key, faults)
      : { value: env[setting.env], source: `environment ${setting.env}` };
    if (raw?.value === undefined) continue;
    admit(layer, { key, setting, value: raw.value, source: raw.source, isText: true }, faults);
  }
  faults.push(...misspeltBreakerNames(env));
  return layer;
}

function readFlagLayer(flags: Readonly<Record<string, unknown>>, faults: ConfigFault[]): Layer {
  const layer = new Map<string, { value: unknown; source: string }>();
  for (const [key, value] of Object.entries(flags)) {
    if (value === undefined) continue;
    const setting = settings.get(key);
    const source = `flag ${key}`;
    if (setting === undefined) faults.push(unknownKey(key, value, source));
    else admit(layer, { key, setting, value, source, isText: typeof value === 'string' }, faults);
  }
  return layer;
}

type Candidate = {
  readonly key: string;
  readonly setting: Setting<unknown>;
  readonly value: unknown;
  readonly source: string;
  readonly isText?: boolean;
};

/** Puts a value into its layer, or names its fault. Text goes through two checks: is it written right, is the value allowed. */
function admit(
  layer: Map<string, { value: unknown; source: string }>,
  candidate: Candidate,
  faults: ConfigFault[],
): void {
  const { key, setting, value, source } = candidate;
  const read = candidate.isText === true ? setting.text().safeParse(value) : { success: true, data: value };
  if (read.success && setting.given().safeParse(read.data).success)
    layer.set(key, { value: read.data, source });
  else faults.push({ key, expected: setting.expected, got: describeGot(value, setting.secret), source });
}

function unknownKey(key: string, value: unknown, source: string): ConfigFault {
  return { key, expected: 'no such key', got: describeType(value), source };
}

/** The names of breakers are many and alike; one that is misspelt would silently keep its default. */
function misspeltBreakerNames(env: Environment): ConfigFault[] {
  const known = new Set(settingEnvironmentNames());
  return Object.keys(env)
    .filter((name) => /^CB_(REDIS|DB|GRPC|LLM|TOOL|BUDGET)_/.test(name) && !known.has(name))
    .map((name) => ({
      key: 'breakers',
      expected: 'CB_<REDIS|DB|GRPC|LLM|TOOL|BUDGET>_<setting>',
      got: name,
      source: `environment ${name}`,
    }));
}

/** Lays the layers over each other. The values are checked already, so convict's own reading of texts never runs on raw ones. */
function layOver([shipped, overlay, environment, flags]: readonly [Layer, Layer, Layer, Layer]): unknown {
  const env = [...environment].map(([key, { value }]) => [settings.get(key)?.env, value]);
  const layered = convict<Record<string, unknown>>(toConvictSchema(schema, shipped), {
    args: [],
    // Typed as texts, but convict takes a value of any type as it is.
    env: Object.fromEntries(env),
  });
  layered.load(toTree(overlay));
  for (const [key, { value }] of flags) layered.set(key, value);
  layered.validate({ allowed: 'strict' });
  return layered.getProperties();
}

function toConvictSchema(
  tree: SettingTree,
  defaults: Layer,
  prefix = '',
): convict.Schema<Record<string, unknown>> {
  const entries = Object.entries(tree).map(([name, node]) => {
    const key = `${prefix}${name}`;
    if (!isSetting(node)) return [name, toConvictSchema(node, defaults, `${key}.`)];
    return [
      name,
      {
        default: defaults.get(key)?.value ?? null,
        env: node.env,
        sensitive: node.secret,
        nullable: node.nullable,
        format: (value: unknown) => {
          if (!node.given().safeParse(value).success) throw new Error(`must be ${node.expected}`);
        },
      },
    ];
  });
  return Object.fromEntries(entries);
}

function toTree(layer: Layer): Record<string, unknown> {
  const tree: Record<string, unknown> = {};
  for (const [key, { value }] of layer) {
    const path = key.split('.');
    const last = path.pop() ?? key;
    const parent = path.reduce<Record<string, unknown>>((inner, part) => {
      inner[part] ??= {};
      return inner[part] as Record<string, unknown>; // only this function writes into it
    }, tree);
    parent[last] = value;
  }
  return tree;
}

function resolveTree(tree: SettingTree, given: unknown): unknown {
  const entries = Object.entries(tree).map(([name, node]) => {
    const value = isMap(given) ? given[name] : undefined;
    if (!isSetting(node)) return [name, resolveTree(node, value)];
    return [node.kind === 'duration' ? `${name}Ms` : name, node.given().parse(value)];
  });
  return Object.fromEntries(entries);
}

/** What only several settings together can have wrong. */
function crossFaults({ call }: Settings, layers: readonly Layer[]): ConfigFault[] {
  if (call.leaseRenewalMs < call.leaseMs) return [];
  const from = layers.findLast((layer) => layer.has('call.leaseRenewal'))?.get('call.leaseRenewal');
  return [
    {
      key: 'call.leaseRenewal',
      expected: `less than call.lease (${formatDuration(call.leaseMs)})`,
      got: formatDuration(call.leaseRenewalMs),
      source: from?.source ?? 'default',
    },
  ];
}

function flatten(tree: SettingTree, prefix = ''): [string, Setting<unknown>][] {
  return Object.entries(tree).flatMap(([name, node]): [string, Setting<unknown>][] =>
    isSetting(node) ? [[`${prefix}${name}`, node]] : flatten(node, `${prefix}${name}.`),
  );
}
