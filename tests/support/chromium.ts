// A headless Chromium of one test, spoken to in its own DevTools protocol over one WebSocket: pages are opened and asked.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { eventually } from './eventually.ts';

export type Page = {
  /** The value of a JavaScript expression in the page; it must be JSON. @throws what the page throws */
  evaluate(expression: string): Promise<unknown>;
};

export type Chromium = AsyncDisposable & {
  /** Opens a page; `early` runs in it before anything of its own does. */
  open(url: string, early?: string): Promise<Page>;
};

/** Resolves when it takes commands. */
export async function startChromium(program: string): Promise<Chromium> {
  const folder = await mkdtemp(join(tmpdir(), 'weir-chromium-'));
  const flags = [
    ...['--headless', '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--no-first-run'],
    ...['--disable-background-networking', '--remote-debugging-port=0', `--user-data-dir=${folder}`],
  ];
  // A group of its own: it starts processes that its end does not end.
  const child = spawn(program, [...flags, 'about:blank'], { stdio: 'ignore', detached: true });
  const exit = once(child, 'exit');
  const end = async () => {
    if (child.pid !== undefined && child.exitCode === null) process.kill(-child.pid, 'SIGKILL');
    await exit;
    await rm(folder, { recursive: true, force: true, maxRetries: 10 });
  };
  try {
    const address = await eventually(async () => {
      const [port, path] = (await readFile(join(folder, 'DevToolsActivePort'), 'utf8')).split('\n');
      if (port === undefined || path === undefined) throw new Error('Chromium has not written its port yet');
      return `ws://127.0.0.1:${port}${path}`;
    }, 50_000);
    const devTools = await openDevTools(address);
    return {
      open: (url, early) => openPage(devTools, url, early),
      async [Symbol.asyncDispose]() {
        devTools.close();
        await end();
      },
    };
  } catch (error) {
    await end();
    throw error;
  }
}

type DevTools = {
  send(method: string, params: object, sessionId?: string): Promise<Record<string, unknown>>;
  close(): void;
};

type Answer = { id?: number; result?: Record<string, unknown>; error?: { message: string } };

async function openDevTools(address: string): Promise<DevTools> {
  const socket = new WebSocket(address);
  const waiting = new Map<number, (answer: Answer) => void>();
  let next = 0;
  socket.addEventListener('message', ({ data }) => {
    const answer = JSON.parse(String(data)) as Answer; // or an event, which has no id
    if (answer.id === undefined) return;
    waiting.get(answer.id)?.(answer);
    waiting.delete(answer.id);
  });
  socket.addEventListener('close', () => {
    for (const answer of waiting.values()) answer({ error: { message: 'Chromium is gone' } });
  });
  await new Promise<void>((resolve, reject) => {
    socket.addEventListener('open', () => resolve());
    socket.addEventListener('error', () => reject(new Error('Chromium takes no connection')));
  });
  return {
    close: () => socket.close(),
    send(method, params, sessionId) {
      next += 1;
      const id = next;
      return new Promise((resolve, reject) => {
        waiting.set(id, ({ result, error }) => {
          if (error === undefined) resolve(result ?? {});
          else reject(new Error(`${method}: ${error.message}`));
        });
        socket.send(
          JSON.stringify({ id, method, params, ...(sessionId === undefined ? {} : { sessionId }) }),
        );
      });
    },
  };
}

async function openPage(devTools: DevTools, url: string, early: string | undefined): Promise<Page> {
  const { targetId } = await devTools.send('Target.createTarget', { url: 'about:blank' });
  const attached = await devTools.send('Target.attachToTarget', { targetId, flatten: true });
  const sessionId = String(attached['sessionId']);
  const send = (method: string, params: object) => devTools.send(method, params, sessionId);
  await send('Page.enable', {});
  if (early !== undefined) await send('Page.addScriptToEvaluateOnNewDocument', { source: early });
  const navigated = await send('Page.navigate', { url });
  if (navigated['errorText'] !== undefined) throw new Error(`${url}: ${navigated['errorText']}`);
  return {
    async evaluate(expression) {
      const given = { expression, returnByValue: true, awaitPromise: true };
      const { result, exceptionDetails } = (await send('Runtime.evaluate', given)) as {
        result?: { value?: unknown };
        exceptionDetails?: { text: string; exception?: { description?: string } };
      };
      if (exceptionDetails !== undefined)
        throw new Error(exceptionDetails.exception?.description ?? exceptionDetails.text);
      return result?.value;
    },
  };
}
