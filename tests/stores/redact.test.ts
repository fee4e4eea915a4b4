import { describe, expect, it } from 'vitest';
import { redact } from '../../src/stores/redact.ts';

const JWT = `eyJ${'hbGciOiJIUzI1NiJ9'}.eyJ${'zdWIiOiIxMjM0NTY3ODkwIn0'}.${'dozjgNryP4J3jVmNHl0w5N'}`;
const PEM = (kind: string) =>
  `-----BEGIN ${kind}PRIVATE KEY-----\nMIIEpAIBAAKCAQEA\nabc+/=\n-----END ${kind}PRIVATE KEY-----`;

describe('redact', () => {
  it.each([
    ['a key of a provider', `sk-${'abcdefghijklmnop1234'}`],
    ['a key of a project', `sk-proj-${'abc_DEF-1234567890'}`],
    ["Google's", `AIza${'SyA1234567890abcdefghijklmnopqrstuv'}`],
    ["Amazon's", `AKIA${'IOSFODNN7EXAMPLE'}`],
    ["GitHub's", `ghp_${'abcdefghijklmnopqrstuvwxyz0123456789'}`],
    ["GitHub's newer one", `github_pat_${'11ABCDEFG0abcdefghijkl_mnopqrstuvwxyz'}`],
    ["Stripe's", `sk_live_${'abcdefghijklmnop1234'}`],
    ["Groq's", `gsk_${'abcdefghijklmnop1234'}`],
    ["Hugging Face's", `hf_${'abcdefghijklmnop1234'}`],
    ["Google's for users", `ya29.${'abcdefghijklmnop-1234'}`],
    ["Slack's", `xoxb-${'123456789012-abcdefghijkl'}`],
    ['a bearer token', 'Bearer abc.def~ghi/jkl+mno=='],
    ['a JSON web token', JWT],
    ['a JSON web token without its signature', JWT.slice(0, JWT.lastIndexOf('.'))],
    ['a private key', PEM('RSA ')],
    ['a private key of no kind', PEM('')],
  ])('takes %s out of a text', (_, secret) => {
    expect(redact(`before ${secret} after`)).toBe('before [redacted] after');
    expect(redact(`"${secret}"`)).toBe('"[redacted]"');
    expect(redact(`key=${secret},${secret}`)).not.toContain(secret.slice(0, 12));
  });

  it.each([
    ['postgres://weir:hunter2@db:5432/weir', 'postgres://weir:[redacted]@db:5432/weir'],
    ['redis://:p@ss@cache:6379', 'redis://:[redacted]@cache:6379'],
    ['host=db password=hunter2 user=weir', 'host=db password=[redacted] user=weir'],
    ["password='hunter 2' user=weir", 'password=[redacted] user=weir'],
    ['https://x.example/?api_key=hunter2&page=2', 'https://x.example/?api_key=[redacted]&page=2'],
    ['{"client_secret": "hunter2", "n": 1}', '{"client_secret": "[redacted]", "n": 1}'],
    ['"{\\"password\\":\\"hunter2\\"}"', '"{\\"password\\":\\"[redacted]\\"}"'],
    ['Server=db;Pwd=hunter2;Timeout=5', 'Server=db;Pwd=[redacted];Timeout=5'],
    ['Server=db;Password=a<b>hunter2;x=1', 'Server=db;Password=[redacted];x=1'],
    ["failed: password=it's-hunter2 host=db", 'failed: password=[redacted] host=db'],
    ['Password="a""hunter2";Server=db', 'Password=[redacted];Server=db'],
    ["password='it\\'s hunter2' user=weir", 'password=[redacted] user=weir'],
    ['"dsn": "password=\\"hunter2\\" user=weir"', '"dsn": "password=[redacted]\\" user=weir"'],
    [
      'AccountName=x;AccountKey=hunter2==;EndpointSuffix=y',
      'AccountName=x;AccountKey=[redacted];EndpointSuffix=y',
    ],
    ['AWS_SESSION_TOKEN=hunter2', 'AWS_SESSION_TOKEN=[redacted]'],
    ['Authorization: Basic dXNlcjpodW50ZXIy', 'Authorization: Basic [redacted]'],
    [`{"password":"it's-hunter2"}`, '{"password":"[redacted]"}'],
    ['{"password":"a\\"hunter2","n":"b"}', '{"password":"[redacted]","n":"b"}'],
    ['{"password":"hunter2\\\\","n":"b"}', '{"password":"[redacted]","n":"b"}'],
    [`{'password': 'say "hunter2"'}`, `{'password': '[redacted]'}`],
    [
      JSON.stringify(JSON.stringify({ password: 'a"hunter2\\', n: 'b' })),
      JSON.stringify(JSON.stringify({ password: '[redacted]', n: 'b' })),
    ],
  ])('takes the password alone out of %s', (text, safe) => {
    expect(redact(text)).toBe(safe);
  });

  it('takes a private key that is cut off to the end of its text', () => {
    expect(redact('key:\n-----BEGIN EC PRIVATE KEY-----\nMHcCAQEE\nabc')).toBe('key:\n[redacted]');
  });

  it.each([
    ['the standard alphabet', 'ab+/'],
    ['the alphabet for URLs', 'ab-_'],
  ])('replaces a kilobyte of base64 in %s', (_, letters) => {
    const bytes = letters.repeat(300);
    expect(redact(`see ${bytes}== there`)).toBe('see [base64] there');
    expect(redact(`![](data:image/png;charset=x;base64,${bytes})`)).toBe(
      '![](data:image/png;charset=x;base64,[base64])',
    );
    expect(redact(bytes.replaceAll(/(.{76})/g, '$1\r\n'))).toBe('[base64]');
  });

  it.each([
    '',
    'a text of words',
    'task-1234567890abcdef and risk-assessment-of-something',
    'a password is asked for; the secret: practice',
    'usage: inputTokens=12, tokens=5',
    'http://host:8080/path?q=a@b',
    'bearer of news',
    'http://localhost:3000?mail=bob@example.com',
    '{"url":"http://host:8080","owner":"bob@example.com"}',
    "['http://host:8080','bob@example.com']",
    'see [http://host:8080](x),bob@example.com',
    'if (password == other) return',
    'AKIA is an id, sk- a prefix, eyJ a beginning',
    'x'.repeat(1_023),
    '[redacted] and [base64]',
  ])('leaves %j as it is', (text) => {
    expect(redact(text)).toBe(text);
  });

  it('looks again at what a replacement sets free', () => {
    expect(redact(`AKIA${'IOSFODNN7EXAMPLE'}sk-${'abcdefghijklmnop'}`)).toBe('[redacted][redacted]');
  });

  // Were one of the patterns quadratic, the test would run into its time limit.
  it.each([
    'a',
    'a-',
    '://',
    '://a:',
    'eyJ',
    '-----BEGIN PRIVATE KEY',
    'data:;',
    'password=',
    'password="',
    'password="\\',
    'password":"\\',
    'password\\":\\"',
    'password\\":\\"\\\\',
    '://a:1',
    'authorization: basic ',
    '"',
    ' ',
    'a:',
    '\\',
    'sk-',
  ])('reads long texts of %j', (piece) => {
    for (let n = 0; n < 20; n += 1) redact(piece.repeat(20_000 / piece.length));
  });
});
