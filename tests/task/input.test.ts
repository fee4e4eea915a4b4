import { describe, expect, it } from 'vitest';
import type { Fault } from '../../src/task/failure.ts';
import { isId, parseTaskInput, type TaskInput, taskIdFault } from '../../src/task/input.ts';
import { inputFields } from '../../src/task/input-fields.ts';

const MINIMAL = { userId: 'ada', query: 'why is the sky blue' };

function valid(value: unknown): TaskInput {
  const parsed = parseTaskInput(value);
  if (parsed.kind === 'invalid') throw new Error(JSON.stringify(parsed.faults));
  return parsed.input;
}

function faultsOf(value: unknown): readonly Fault[] {
  const parsed = parseTaskInput(value);
  if (parsed.kind === 'valid') throw new Error('the input is valid');
  return parsed.faults;
}

const pathsOf = (value: unknown) => faultsOf(value).map((fault) => fault.path);

/** As it comes over the wire: JSON.parse makes own properties of names that a literal would not. */
const withField = (name: string, json: string): unknown =>
  JSON.parse(`{"userId":"ada","query":"q",${JSON.stringify(name)}:${json}}`);

describe('parseTaskInput', () => {
  it('fills in every default', () => {
    expect(valid(MINIMAL)).toEqual({
      messages: [{ role: 'user', content: 'why is the sky blue' }],
      tenantId: 'default',
      userId: 'ada',
      strategy: 'auto',
      tools: [],
      budget: { onExceeded: 'refuse' },
      approval: { before: 'never', timeoutSeconds: 86_400, onTimeout: 'reject' },
      priority: 'normal',
      abort: 'cancel',
      labels: {},
    });
  });

  it('keeps a conversation as it is', () => {
    const messages = [
      { role: 'system', content: 'be brief' },
      { role: 'user', content: [{ type: 'text', text: 'why' }] },
      { role: 'assistant', content: 'because' },
      { role: 'user', content: 'and why that' },
    ];
    expect(valid({ userId: 'ada', messages }).messages).toEqual(messages);
  });

  it('takes every field of the table at once', () => {
    const all = {
      query: 'q',
      tenantId: 't',
      userId: 'u',
      sessionId: 's',
      strategy: 'simple',
      tier: 'large',
      maxOutputTokens: 100,
      temperature: 0.5,
      reasoningEffort: 'low',
      responseFormat: 'json',
      tools: ['search'],
      budget: { usd: 1.5, tokens: 1000, onExceeded: 'refuse' },
      approval: { before: 'never', timeoutSeconds: 60, onTimeout: 'reject' },
      priority: 'critical',
      deadline: '2030-01-31T12:00:00+01:00',
      abort: 'cancel',
      labels: { team: 'blue' },
    };
    expect(Object.keys(inputFields).filter((name) => !(name in all))).toEqual(['messages', 'model']);
    expect(valid(all)).toMatchObject({
      tier: 'large',
      responseFormat: { type: 'json' },
      budget: { usd: '1.50', tokens: 1000, onExceeded: 'refuse' },
      deadline: '2030-01-31T11:00:00.000Z',
      labels: { team: 'blue' },
    });
  });

  it.each<[string, string]>([
    ['query', '" x "'],
    ['tenantId', '"a.b_c:d@e-1"'],
    ['userId', `"${'u'.repeat(128)}"`],
    ['sessionId', '"s"'],
    ['strategy', '"auto"'],
    ['tier', '"small"'],
    ['model', '"openai/gpt-5.2"'],
    ['model', '"compatible/org/model:free"'],
    ['maxOutputTokens', '1'],
    ['maxOutputTokens', '1e7'],
    ['temperature', '0'],
    ['reasoningEffort', '"minimal"'],
    ['reasoningEffort', '"high"'],
    ['temperature', '2'],
    ['responseFormat', '"text"'],
    ['responseFormat', '{"type":"json"}'],
    ['responseFormat', '{"type":"json_schema","schema":{"type":"object"}}'],
    ['responseFormat', '{"type":"json_schema","name":"answer-1","schema":{}}'],
    ['tools', '[]'],
    ['budget', '{}'],
    ['budget', '{"tokens":0}'],
    ['approval', '{"before":"never"}'],
    ['priority', '"low"'],
    ['deadline', '"2030-01-31T12:00Z"'],
    ['deadline', '"2028-02-29T12:00:00.123456789-05:30"'],
    ['abort', '"cancel"'],
    ['labels', '{"a":"","b.c":"text with spaces"}'],
    ['labels', '{"__proto__":"x"}'],
  ])('takes %s: %s', (name, json) => {
    expect(valid(withField(name, json))).toBeTypeOf('object');
  });

  it.each<[string, string, string]>([
    ['query', '""', 'query'],
    ['query', '" \\n\\t "', 'query'],
    ['query', '7', 'query'],
    ['query', 'null', 'query'],
    ['query', '["x"]', 'query'],
    ['query', '"a\\u0000b"', 'query'],
    ['query', '"a\\ud800b"', 'query'],
    ['query', '"\\udc00"', 'query'],
    ['tenantId', '""', 'tenantId'],
    ['tenantId', '"a b"', 'tenantId'],
    ['tenantId', '"{t:x}"', 'tenantId'],
    ['tenantId', 'null', 'tenantId'],
    ['userId', `"${'u'.repeat(129)}"`, 'userId'],
    ['userId', '"ada\\n"', 'userId'],
    ['userId', '12', 'userId'],
    ['sessionId', '"a/b"', 'sessionId'],
    ['sessionId', '"ä"', 'sessionId'],
    ['strategy', '"Simple"', 'strategy'],
    ['strategy', '1', 'strategy'],
    ['tier', '"huge"', 'tier'],
    ['model', '"gpt"', 'model'],
    ['model', '"/gpt"', 'model'],
    ['model', '"openai/"', 'model'],
    ['model', '"openai/a b"', 'model'],
    ['model', `"openai/${'m'.repeat(200)}"`, 'model'],
    ['model', '"openai/\\ud800"', 'model'],
    ['maxOutputTokens', '0', 'maxOutputTokens'],
    ['maxOutputTokens', '-1', 'maxOutputTokens'],
    ['maxOutputTokens', '1.5', 'maxOutputTokens'],
    ['maxOutputTokens', '9e15', 'maxOutputTokens'],
    ['maxOutputTokens', '1e308', 'maxOutputTokens'],
    ['maxOutputTokens', '1e999', 'maxOutputTokens'],
    ['maxOutputTokens', '"100"', 'maxOutputTokens'],
    ['maxOutputTokens', 'true', 'maxOutputTokens'],
    ['temperature', '-0.1', 'temperature'],
    ['temperature', '2.1', 'temperature'],
    ['temperature', '"hot"', 'temperature'],
    ['reasoningEffort', '"extreme"', 'reasoningEffort'],
    ['reasoningEffort', '5', 'reasoningEffort'],
    ['responseFormat', '"xml"', 'responseFormat'],
    ['responseFormat', '[]', 'responseFormat'],
    ['responseFormat', 'null', 'responseFormat'],
    ['responseFormat', '{"type":"json","schema":{}}', 'responseFormat'],
    ['responseFormat', '{"type":"json_schema"}', 'responseFormat'],
    ['responseFormat', '{"type":"json_schema","schema":[]}', 'responseFormat'],
    ['responseFormat', '{"type":"json_schema","schema":{},"name":"a b"}', 'responseFormat'],
    ['responseFormat', '{"type":"json_schema","schema":{},"strict":true}', 'responseFormat'],
    ['responseFormat', '{"type":"json_schema","schema":{"title":"a\\u0000"}}', 'responseFormat'],
    ['responseFormat', '{"type":"json_schema","schema":{"\\ud800":1}}', 'responseFormat'],
    ['tools', '"search"', 'tools'],
    ['tools', '[1]', 'tools'],
    ['tools', '["a b"]', 'tools'],
    ['tools', JSON.stringify(Array.from({ length: 65 }, (_, n) => `tool-${n}`)), 'tools'],
    ['budget', 'null', 'budget'],
    ['budget', '[]', 'budget'],
    ['budget', '"1.00"', 'budget'],
    ['budget', '{"usd":-1}', 'budget.usd'],
    ['budget', '{"usd":"-0.01"}', 'budget.usd'],
    ['budget', '{"usd":"1e3"}', 'budget.usd'],
    ['budget', '{"usd":1e308}', 'budget.usd'],
    ['budget', '{"usd":9000000.01}', 'budget.usd'],
    ['budget', '{"usd":"9000000.000000001"}', 'budget.usd'],
    ['budget', '{"usd":"0.0000000001"}', 'budget.usd'],
    ['budget', '{"usd":true}', 'budget.usd'],
    ['budget', '{"usd":null}', 'budget.usd'],
    ['budget', '{"tokens":-1}', 'budget.tokens'],
    ['budget', '{"tokens":0.5}', 'budget.tokens'],
    ['budget', '{"tokens":9e15}', 'budget.tokens'],
    ['budget', '{"onExceeded":"explode"}', 'budget.onExceeded'],
    ['budget', '{"eur":1}', 'budget.eur'],
    ['approval', '"start"', 'approval'],
    ['approval', '{"timeoutSeconds":0}', 'approval.timeoutSeconds'],
    ['approval', '{"onTimeout":"shrug"}', 'approval.onTimeout'],
    ['approval', '{"after":"start"}', 'approval.after'],
    ['priority', '"urgent"', 'priority'],
    ['priority', '1', 'priority'],
    ['deadline', '"tomorrow"', 'deadline'],
    ['deadline', '"2030-01-31"', 'deadline'],
    ['deadline', '"2030-01-31T12:00:00"', 'deadline'],
    ['deadline', '"2030-02-30T12:00:00Z"', 'deadline'],
    ['deadline', '"2030-02-29T12:00:00Z"', 'deadline'],
    ['deadline', '"2030-13-01T12:00:00Z"', 'deadline'],
    ['deadline', '"2030-01-31T25:00:00Z"', 'deadline'],
    ['deadline', '"2030-01-31T12:00:00+99:99"', 'deadline'],
    ['deadline', '1893456000000', 'deadline'],
    ['abort', '"never"', 'abort'],
    ['labels', '[]', 'labels'],
    ['labels', '{"a":1}', 'labels'],
    ['labels', '{"a b":"x"}', 'labels'],
    ['labels', '{"a":"\\u0000"}', 'labels'],
    ['labels', `{"a":"${'x'.repeat(257)}"}`, 'labels'],
    [
      'labels',
      JSON.stringify(Object.fromEntries(Array.from({ length: 21 }, (_, n) => [`l${n}`, '']))),
      'labels',
    ],
  ])('refuses %s: %s at %s', (name, json, path) => {
    expect(pathsOf(withField(name, json))).toEqual([path]);
  });

  it.each<[string, string, string, string]>([
    ...['dag', 'react', 'research', 'reflection', 'debate', 'tree_of_thoughts'].map(
      (word): [string, string, string, string] => ['strategy', `"${word}"`, 'strategy', word],
    ),
    ['approval', '{"before":"start"}', 'approval.before', 'start'],
    ['approval', '{"before":"tools"}', 'approval.before', 'tools'],
  ])('says of %s: %s that it is not available yet', (name, json, path, word) => {
    const [fault, ...others] = faultsOf(withField(name, json));
    expect(others).toEqual([]);
    expect(fault).toMatchObject({ path, got: `"${word}"` });
    expect(fault?.expected).toContain(`not available yet: ${word}`);
  });

  it.each<[string, unknown, string]>([
    ['nothing', undefined, 'undefined'],
    ['null', null, 'null'],
    ['a list', [MINIMAL], 'a list'],
    ['a text', 'why', '"why"'],
    ['a number', 7, '7'],
    ['a boolean', true, 'true'],
  ])('refuses %s as the whole input', (_title, value, got) => {
    expect(faultsOf(value)).toEqual([{ path: '', expected: 'an object', got }]);
  });

  it('names a missing user and a missing question together', () => {
    expect(faultsOf({})).toEqual([
      { path: 'query', expected: 'one of query and messages', got: 'neither' },
      {
        path: 'userId',
        expected: 'an id of 1 to 128 characters out of A-Z a-z 0-9 . _ : @ -',
        got: 'nothing',
      },
    ]);
  });

  it('refuses a query beside messages, and a tier beside a model', () => {
    const both = { ...MINIMAL, messages: [{ role: 'user', content: 'x' }], tier: 'small', model: 'a/b' };
    expect(faultsOf(both)).toEqual([
      { path: 'query', expected: 'one of query and messages', got: 'both' },
      { path: 'tier', expected: 'at most one of tier and model', got: 'both' },
    ]);
  });

  it('takes a field that is undefined as absent', () => {
    expect(valid({ ...MINIMAL, tenantId: undefined, messages: undefined, model: undefined }).tenantId).toBe(
      'default',
    );
  });

  it('names unknown fields with what they held', () => {
    expect(faultsOf({ ...MINIMAL, querry: 'x', temprature: { a: 1 } })).toEqual([
      { path: 'querry', expected: 'no such field', got: '"x"' },
      { path: 'temprature', expected: 'no such field', got: '{"a":1}' },
    ]);
  });

  it.each<[string, unknown, readonly string[]]>([
    ['an empty list', [], ['messages']],
    [
      'more than a thousand',
      Array.from({ length: 1001 }, () => ({ role: 'user', content: 'x' })),
      ['messages'],
    ],
    ['no list', { role: 'user', content: 'x' }, ['messages']],
    ['no message', [null, 'x', []], ['messages.0', 'messages.1', 'messages.2']],
    ['no user', [{ role: 'system', content: 'x' }], ['messages']],
    ['an empty user message', [{ role: 'user', content: '' }], ['messages']],
    ['a blank user message', [{ role: 'user', content: ' \n' }], ['messages']],
    [
      'a user message of empty parts',
      [{ role: 'user', content: [{ type: 'text', text: '' }] }],
      ['messages'],
    ],
    ['an unknown role', [{ role: 'robot', content: 'x' }], ['messages.0.role']],
    ['a role that comes with tools', [{ role: 'tool', content: 'x' }], ['messages.0.role']],
    ['no content', [{ role: 'user' }], ['messages.0.content']],
    ['an empty list of parts', [{ role: 'user', content: [] }], ['messages.0.content']],
    ['a NUL', [{ role: 'user', content: 'a\u0000' }], ['messages.0.content']],
    ['a lone surrogate', [{ role: 'user', content: '\ud83d' }], ['messages.0.content']],
    [
      'a part of another type',
      [{ role: 'user', content: [{ type: 'image', url: 'x' }] }],
      ['messages.0.content.0'],
    ],
    [
      'bad parts among good ones',
      [
        {
          role: 'user',
          content: [
            { type: 'text', text: 'x' },
            { type: 'text', text: '\u0000' },
            { type: 'text', text: 'x', extra: 1 },
            null,
          ],
        },
      ],
      ['messages.0.content.1', 'messages.0.content.2', 'messages.0.content.3'],
    ],
    ['an unknown field', [{ role: 'user', content: 'x', name: 'ada' }], ['messages.0.name']],
  ])('refuses messages with %s', (_title, messages, paths) => {
    expect(pathsOf({ userId: 'ada', messages })).toEqual(paths);
  });
});

describe('ids', () => {
  it.each(['a', 'A.b_c:d@e-9', 'x'.repeat(128)])('takes %s', (id) => {
    expect(isId(id)).toBe(true);
    expect(taskIdFault(id)).toBeUndefined();
  });

  it.each(['', 'x'.repeat(129), 'a b', 'a/b', '{a}', 'a#b', 'a\n', 'ä', 'a\u0000'])('refuses %j', (id) => {
    expect(isId(id)).toBe(false);
    expect(taskIdFault(id)).toMatchObject({ path: 'taskId' });
  });
});
