// The gateway's web application, without connections and without a port: what a request passes through, in order. Tests use it by
// `inject()`; src/gateway.ts listens with it.

import fastify, { type FastifyReply, type FastifyRequest } from 'fastify';
import { serializerCompiler, validatorCompiler, type ZodTypeProvider } from 'fastify-type-provider-zod';
import { registerApprovals } from './approvals.ts';
import { createKeyCheck } from './auth.ts';
import { registerBreakers } from './breakers.ts';
import { registerBudgets } from './budgets.ts';
import { registerDocumentation } from './documentation.ts';
import { registerErase } from './erase.ts';
import { createErrorHandler, notFound, sendProblem } from './errors.ts';
import { registerExplain } from './explain.ts';
import { createOpenRequests } from './open-requests.ts';
import { createOpenStreams, type OpenStreams } from './open-streams.ts';
import { registerOperations } from './operations.ts';
import { tellingOutage } from './outage.ts';
import type { App, GatewayParts, RouteParts } from './parts.ts';
import { createPresents, sharing } from './presents.ts';
import { registerQueues } from './queues.ts';
import { registerRateLimits } from './rate-limits.ts';
import { registerStreams } from './streams.ts';
import { findTask } from './task-view.ts';
import { registerTasks } from './tasks.ts';
import { registerUsage } from './usage.ts';
import { registerWebsocket, registerWebsockets } from './websocket.ts';

/** Ids have at most 128 characters, each up to three in a URL. */
const MAX_PARAM_LENGTH = 400;

const DEFAULT_GRACE_MS = 10_000;

/**
 * Ready to listen or to be injected into. Closing it takes no more connections, ends every open stream with a last comment, and lets
 * requests finish within the grace time.
 */
export async function createApp(parts: GatewayParts): Promise<App> {
  const onError = createErrorHandler(parts.log);
  const app: App = fastify({
    logger: false,
    // What has not ended when the grace time is over is cut: closing would wait for ever for some of it.
    forceCloseConnections: true,
    routerOptions: { maxParamLength: MAX_PARAM_LENGTH },
    frameworkErrors: onError,
  }).withTypeProvider<ZodTypeProvider>();
  app.setValidatorCompiler(validatorCompiler);
  app.setSerializerCompiler(serializerCompiler);
  app.setErrorHandler(onError);
  app.setNotFoundHandler(answerNotFound);

  const requests = createOpenRequests();
  const { heartbeatMs, deadAfterMs } = parts.settings;
  const streams = createOpenStreams({ metrics: parts.metrics, requests, heartbeatMs, deadAfterMs });
  app.addHook('onRequest', async (_request, reply) => requests.begin(reply.raw));
  app.addHook('preClose', async () => {
    // Whoever connects now is refused at once and asks another gateway.
    if (app.server.listening) app.server.close();
    await streams.close();
    const cut = await requests.answered(parts.settings.shutdownGraceMs ?? DEFAULT_GRACE_MS);
    if (cut > 0) parts.log.warn('requests were cut, since the gateway waits no longer for them', { cut });
  });
  const routes = toRouteParts(parts, streams);
  await registerDocumentation(app);
  await registerWebsockets(app);
  registerOperations(app, routes);
  await app.register(
    async (api: App) => {
      api.addHook('onRequest', createKeyCheck(parts.settings));
      registerTasks(api, routes);
      registerStreams(api, routes);
      registerWebsocket(api, routes);
      registerBudgets(api, routes);
      registerExplain(api, routes);
      registerApprovals(api, routes);
      registerUsage(api, routes);
      registerRateLimits(api, routes);
      registerQueues(api, routes);
      registerBreakers(api, routes);
      registerErase(api, routes);
    },
    { prefix: '/api/v1' },
  );
  await app.ready();
  return app;
}

function toRouteParts(parts: GatewayParts, streams: OpenStreams): RouteParts {
  const { tasks, ledger, limits, accounts, approvals, erase, queueCounts, rateReports } = parts.stores;
  const { liveFeed } = parts.stores;
  const telling = <Store extends object>(store: Store): Store => tellingOutage(store, parts.isStoreAway);
  const events = telling(parts.stores.events);
  const sources = { tasks: telling(tasks), client: parts.client };
  return {
    ...parts,
    streams,
    isKnown: sharing(async (taskId) => (await findTask(sources, taskId)) !== undefined),
    stores: {
      tasks: sources.tasks,
      events,
      presents: createPresents(events),
      liveFeed,
      ledger: telling(ledger),
      limits: telling(limits),
      accounts: telling(accounts),
      erase: telling(erase),
      approvals: telling(approvals),
      queueCounts: telling(queueCounts),
      rateReports: telling(rateReports),
    },
  };
}

function answerNotFound(request: FastifyRequest, reply: FastifyReply): FastifyReply {
  return sendProblem(reply, notFound(`there is no ${request.method} ${request.url.split('?')[0]}`).problem);
}
