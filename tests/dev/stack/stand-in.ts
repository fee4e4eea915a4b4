// Stands in for Weir's own processes in the tests of the embedded stack: same environment, same pages, no work.
// usage: stand-in.ts worker | gateway | command [text] | parent <state folder> | dev <state folder>
import { existsSync } from 'node:fs';
import { createServer } from 'node:http';

const [role = '', argument = ''] = process.argv.slice(2);
const environment = process.env;

/** Arguments of node for one of the roles. */
export function standIn(...args: string[]): string[] {
  return [import.meta.filename, ...args];
}

export const STAND_INS = {
  worker: standIn('worker'),
  gateway: standIn('gateway'),
  migrate: standIn('command', 'migrated'),
  bundle: standIn('command', 'bundled'),
};

function say(text: string): void {
  process.stdout.write(`${text}\n`);
}

function serve(host = '', port = ''): void {
  if (environment['BROKEN_IF'] && existsSync(environment['BROKEN_IF'])) {
    say('broken as told');
    process.exit(3);
  }
  const server = createServer((request, response) => {
    response.statusCode = request.url === '/health/ready' || request.url === '/docs' ? 200 : 404;
    response.end('ok');
  });
  server.listen(Number(port), host);
  say(JSON.stringify(environment));
  process.on('SIGTERM', () => {
    if (environment['IGNORES_SIGTERM']) {
      say('told to stop, and does not');
      return;
    }
    say('drained');
    server.close();
    server.closeAllConnections();
  });
}

async function run(): Promise<void> {
  const options = { stateDir: argument, workers: 1, commands: STAND_INS };
  const ports = { gateway: 0, metrics: 0, temporal: 0, temporalUi: 0, redis: 0, postgres: 0 };
  if (role === 'worker') serve(environment['METRICS_HOST'], environment['METRICS_PORT']);
  if (role === 'gateway') serve(environment['WEIR_GATEWAY_HOST'], environment['WEIR_GATEWAY_PORT']);
  if (role === 'command') say(process.argv.slice(3).join(' '));
  // Loaded only here, because the other roles are to be up at once.
  if (role === 'parent') {
    const { startStack } = await import('../../../dev/stack/stack.ts');
    await startStack({ ...options, ports });
  }
  if (role === 'dev') {
    const { runDev } = await import('../../../dev/stack/dev.ts');
    process.exitCode = await runDev({ ...options, ports });
  }
}

if (process.argv[1] === import.meta.filename) await run();
