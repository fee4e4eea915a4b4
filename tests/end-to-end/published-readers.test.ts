// A task's stream read by programs of others: the npm package `eventsource`, and headless Chromium's own EventSource on the page of
// examples/follow, through nginx with its default buffering. Each sees every milestone once and the whole text, piece by piece, and does
// so as well when the network cuts it off in mid-stream.

import { EventSource } from 'eventsource';
import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest';
import { EVENT_TYPES, isMilestone, type TaskEvent } from '../../src/task/event.ts';
import { textOf } from '../gateway/events.ts';
import { type Chromium, type Page, startChromium } from '../support/chromium.ts';
import { eventually } from '../support/eventually.ts';
import { type Fleet, openFleet } from '../support/fleet.ts';
import { type GatewayProcess, startGatewayProcess } from '../support/gateway-process.ts';
import { type Nginx, startNginx } from '../support/nginx.ts';
import { type Relay, startRelay } from '../support/relay.ts';

/** A hundred pieces in six seconds: more than any buffer between here and there gives out by chance. */
const QUERY = 'Tell of weirs in exactly 400 tokens. [[sim:{"chunkDelayMs":60,"tokensPerChunk":4}]]';
/** Separate arrivals of text, at the least: some ninety where nothing holds the stream back, some fifteen where nginx does. */
const PIECES = 30;

let fleet: Fleet;
let gateway: GatewayProcess;
let env: Record<string, string>;
let relay: Relay;
let nginx: Nginx;
let chromium: Chromium;

beforeAll(async () => {
  const readers = inject('readers');
  if ('missing' in readers) throw new Error(readers.missing);
  fleet = await openFleet();
  env = { SIMULATED_BASE_URL: `${fleet.provider.url}/v1` };
  const [, started, browser] = await Promise.all([
    fleet.startWorker(),
    startGatewayProcess(fleet.test, env),
    startChromium(readers.chromium),
  ]);
  gateway = started;
  chromium = browser;
  relay = await startRelay(gateway.port);
  nginx = await startNginx(readers.nginx, relay.port);
}, 120_000);

afterAll(async () => {
  for (const part of [nginx, relay, chromium, gateway, fleet]) await part?.[Symbol.asyncDispose]();
});

async function submit(url: string): Promise<string> {
  const response = await fetch(`${url}/api/v1/tasks`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ userId: 'u1', query: QUERY }),
  });
  expect(response.status).toBe(202);
  return ((await response.json()) as { taskId: string }).taskId;
}

/** What a reader has when its stream has ended. */
type Had = {
  readonly milestones: readonly string[];
  readonly text: string;
  /** Moments at which text came. */
  readonly arrivals: number;
  readonly reconnects: number;
};

type Reading = { textSoFar(): Promise<string>; readonly ended: Promise<Had> };
type PageReading = Reading & { /** What the page says of its connection. */ connection(): Promise<unknown> };

/** The package, used as its README says. */
function readByPackage(url: string, taskId: string): Reading {
  const events: TaskEvent[] = [];
  const moments = new Set<number>();
  let reconnects = 0;
  const source = new EventSource(`${url}/api/v1/tasks/${taskId}/stream`);
  source.onerror = () => {
    reconnects += 1;
  };
  const ended = new Promise<Had>((resolve) => {
    for (const type of EVENT_TYPES)
      source.addEventListener(type, ({ data }) => {
        const event = JSON.parse(data) as TaskEvent;
        events.push(event);
        if (type === 'call_delta') moments.add(Math.round(performance.now()));
        if (type !== 'stream_end') return;
        source.close();
        const milestones = events.filter((one) => isMilestone(one.type)).map(toLine);
        resolve({ milestones, text: textOf(events), arrivals: moments.size, reconnects });
      });
  });
  return { textSoFar: async () => textOf(events), ended };
}

/** Counts the moments at which the page's text grew; the page itself is as it is shipped. */
const WATCH = `addEventListener('DOMContentLoaded', () => {
  window.moments = new Set();
  const watch = new MutationObserver(() => window.moments.add(Math.round(performance.now())));
  watch.observe(document.getElementById('texts'), { childList: true, subtree: true, characterData: true });
})`;

const PAGE_HAS = `({
  text: document.getElementById('texts').innerText,
  milestones: [...document.querySelectorAll('#milestones li')].map((line) => line.value + ' ' + line.dataset.type),
  arrivals: window.moments.size,
  reconnects: Number(document.getElementById('reconnects').textContent),
})`;

const openPage = (address: string): Promise<Page> => chromium.open(`${nginx.url}/${address}`, WATCH);

/** As a person does; answers the task's id, which the page keeps in its address. */
async function submitByForm(page: Page): Promise<string> {
  await eventually(() =>
    page.evaluate(`{
      const form = document.getElementById('submit');
      if (document.readyState !== 'complete') throw new Error('the page is not there yet');
      form.elements.query.value = ${JSON.stringify(QUERY)};
      form.requestSubmit();
    }`),
  );
  return eventually(async () => {
    const taskId = await page.evaluate(`new URLSearchParams(location.search).get('task')`);
    if (typeof taskId !== 'string')
      throw new Error(`no task: ${await page.evaluate('document.body.innerText')}`);
    return taskId;
  });
}

function readByBrowser(page: Page): PageReading {
  const said = (id: string) => page.evaluate(`document.getElementById('${id}')?.textContent`);
  const ended = eventually(async () => {
    expect(await said('connection')).toBe('ended');
    return (await page.evaluate(PAGE_HAS)) as Had;
  }, 60_000);
  return {
    textSoFar: async () => String(await said('texts')),
    connection: () => said('connection'),
    ended,
  };
}

const toLine = ({ seq, type }: Pick<TaskEvent, 'seq' | 'type'>) => `${seq} ${type}`;

/** What is stored of the task, once all of it has its number. */
async function stored(taskId: string): Promise<Pick<Had, 'milestones' | 'text'>> {
  const milestones = await eventually(async () => {
    const { events } = (await (await fetch(`${gateway.url}/api/v1/tasks/${taskId}/events`)).json()) as {
      events: TaskEvent[];
    };
    expect(events.at(-1)?.type).toBe('stream_end');
    return events.map(toLine);
  });
  const task = await (await fetch(`${gateway.url}/api/v1/tasks/${taskId}`)).json();
  return { milestones, text: (task as { result: { text: string } }).result.text };
}

describe('a stream read by programs of others', { timeout: 120_000 }, () => {
  it('comes whole and piece by piece, directly and through nginx with its default buffering', async () => {
    const page = await openPage('');
    const taskId = await submitByForm(page);
    const readings = [
      readByBrowser(page),
      readByPackage(gateway.url, taskId),
      readByPackage(nginx.url, taskId),
    ];
    const all = await Promise.all(readings.map(({ ended }) => ended));
    const { milestones, text } = await stored(taskId);
    expect(text.length).toBeGreaterThan(1_000);
    for (const had of all) {
      expect(had.milestones).toEqual(milestones);
      expect(had.text).toBe(text);
      expect(had.arrivals).toBeGreaterThan(PIECES);
      expect(had.reconnects).toBe(0);
    }
  });

  it('goes on by itself after the network cut it in mid-stream, and loses and repeats nothing', async () => {
    const taskId = await submit(nginx.url);
    const readings = [
      readByPackage(`http://127.0.0.1:${relay.port}`, taskId),
      readByPackage(nginx.url, taskId),
      readByBrowser(await openPage(`?task=${taskId}`)),
    ];
    for (const { textSoFar } of readings)
      await eventually(async () => expect((await textSoFar()).length).toBeGreaterThan(100));
    expect(relay.cut()).toBeGreaterThanOrEqual(readings.length);
    const all = await Promise.all(readings.map(({ ended }) => ended));
    const { milestones, text } = await stored(taskId);
    for (const had of all) {
      expect(had.milestones).toEqual(milestones);
      expect(had.text).toBe(text);
      expect(had.reconnects).toBeGreaterThanOrEqual(1);
    }
  });

  it('goes on in the page where a browser alone gives up: the proxy answers 502 while the gateway restarts', async () => {
    const taskId = await submit(nginx.url);
    const reading = readByBrowser(await openPage(`?task=${taskId}`));
    await eventually(async () => expect((await reading.textSoFar()).length).toBeGreaterThan(100));
    await gateway.kill();
    await eventually(async () =>
      expect((await fetch(`${nginx.url}/api/v1/tasks/${taskId}`)).status).toBe(502),
    );
    await eventually(async () => expect(await reading.connection()).toBe('no answer, trying again'));
    gateway = await startGatewayProcess(fleet.test, { ...env, WEIR_GATEWAY_PORT: String(gateway.port) });
    const had = await reading.ended;
    expect(had).toMatchObject(await stored(taskId));
    expect(had.reconnects).toBeGreaterThanOrEqual(2);
  });
});
