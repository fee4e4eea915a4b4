// The control endpoints: faults, settings, the request log, health. They answer plain JSON and are in no log themselves.

import type { IncomingMessage, ServerResponse } from 'node:http';
import { isObject } from './body-fields.ts';
import { readFaultRule } from './fault.ts';
import { badRequest, ProblemError } from './problem.ts';
import type { Provider } from './serve-call.ts';
import { changeSettings, settingsToJson } from './settings.ts';

type Route = (
  provider: Provider,
  given: { readonly query: URLSearchParams; readonly body: unknown },
) => unknown;

const ROUTES: Record<string, Partial<Record<string, Route>>> = {
  '/control/health': {
    GET: (provider) => ({
      status: 'ok',
      requests: provider.log.last,
      uptimeMs: Math.round(process.uptime() * 1000),
    }),
  },
  '/control/faults': {
    GET: (provider) => provider.faults.list(),
    PUT: (provider, { body }) => {
      if (!Array.isArray(body)) throw badRequest('the body must be an array of fault rules');
      provider.faults.replaceRules(body.map((rule, index) => readFaultRule(rule, `rule ${index}`)));
      return provider.faults.list();
    },
    DELETE: (provider) => {
      provider.faults.clear();
      return [];
    },
  },
  '/control/settings': {
    GET: (provider) => settingsToJson(provider.settings),
    PUT: (provider, { body }) => {
      if (!isObject(body)) throw badRequest('the body must be an object');
      const { settings } = provider;
      provider.settings = changeSettings(settings, body);
      const { rpm, tpm } = provider.settings;
      if (rpm !== settings.rpm || tpm !== settings.tpm) provider.limits.replace({ rpm, tpm });
      return settingsToJson(provider.settings);
    },
  },
  '/control/requests': {
    GET: (provider, { query }) => {
      const since = query.get('since') ?? '0';
      if (!/^\d{1,15}$/.test(since)) throw badRequest("'since' must be a number of the log");
      return provider.log.since(Number(since));
    },
    DELETE: (provider) => {
      provider.log.clear();
      return [];
    },
  },
};

export async function serveControl(
  request: IncomingMessage,
  response: ServerResponse,
  about: { readonly url: URL; readonly provider: Provider; readonly readBody: () => Promise<string> },
): Promise<void> {
  try {
    const route = routeFor(request, about.url);
    const body = request.method === 'PUT' ? parseJson(await about.readBody()) : undefined;
    sendJson(response, 200, route(about.provider, { query: about.url.searchParams, body }));
  } catch (error) {
    if (!(error instanceof ProblemError)) throw error;
    sendJson(response, error.problem.status, { error: error.problem.message });
  }
}

function routeFor(request: IncomingMessage, url: URL): Route {
  const methods = Object.hasOwn(ROUTES, url.pathname) ? ROUTES[url.pathname] : undefined;
  if (methods === undefined) {
    const known = Object.keys(ROUTES).join(', ');
    throw new ProblemError({ status: 404, message: `no such control endpoint (known: ${known})` });
  }
  const route = methods[request.method ?? ''];
  if (route !== undefined) return route;
  throw new ProblemError({
    status: 405,
    message: `${url.pathname} takes ${Object.keys(methods).join(', ')}`,
  });
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    // Which part is wrong is of no use without the text, and the text is the caller's.
    throw badRequest('the body is not valid JSON');
  }
}

function sendJson(response: ServerResponse, status: number, value: unknown): void {
  response.writeHead(status, { 'content-type': 'application/json' });
  response.end(JSON.stringify(value));
}
