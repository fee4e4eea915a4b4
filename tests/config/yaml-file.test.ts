import { describe, expect, it } from 'vitest';
import { errorOf, faultsOf } from './overlay.ts';

describe('an overlay folder', () => {
  it.each([
    ['a file that is no YAML', 'metrics: {port: 1\n'],
    ['a key given twice', 'metrics: {port: 1}\nmetrics: {port: 2}\n'],
    ['several documents', 'metrics: {port: 1}\n---\nmetrics: {port: 2}\n'],
    ['a tag', 'metrics: {host: !env HOST}\n'],
    ['an alias of nothing', 'metrics: {port: *port}\n'],
  ])('refuses %s', (_title, text) => {
    expect(faultsOf({ files: { 'default.yaml': text } })).toContainEqual(
      expect.objectContaining({ expected: 'YAML' }),
    );
  });

  it('never quotes a file that is no YAML', () => {
    const { message } = errorOf({
      files: { 'default.yaml': 'gateway: {adminKey: "hush" "hush2"}\nx: @hush3\ny: "\\hush4"\nz: |hush5\n' },
    });
    expect(message).toContain('expected YAML');
    expect(message).not.toContain('hush');
  });

  it('refuses a folder that is none, and a file with a name that is not read', () => {
    expect(faultsOf({ configDir: '/nowhere/at/all' })).toEqual([
      {
        key: 'WEIR_CONFIG_DIR',
        expected: 'a folder',
        got: '"/nowhere/at/all"',
        source: 'environment WEIR_CONFIG_DIR',
      },
    ]);
    expect(faultsOf({ files: { 'limits.yml': '' } })).toEqual([
      { key: '', expected: 'limits.yaml', got: 'limits.yml', source: 'limits.yml' },
    ]);
  });
});
