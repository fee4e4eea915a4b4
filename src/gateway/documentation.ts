// The OpenAPI document, made of the routes' schemas, and the page that shows it.

import fastifySwagger, { type SwaggerTransformObject } from '@fastify/swagger';
import fastifySwaggerUi from '@fastify/swagger-ui';
import { jsonSchemaTransform, jsonSchemaTransformObject } from 'fastify-type-provider-zod';
import type { App } from './parts.ts';

/** Before the routes: only what is registered later is documented. */
export async function registerDocumentation(app: App): Promise<void> {
  await app.register(fastifySwagger, {
    openapi: {
      openapi: '3.1.0',
      info: {
        title: 'Weir',
        description: 'Durable LLM tasks with budgets, rate control and an exact ledger',
        version: '1',
      },
      tags: ['tasks', 'budgets', 'usage', 'operations'].map((name) => ({ name })),
      components: {
        securitySchemes: {
          bearer: { type: 'http', scheme: 'bearer' },
          apiKey: { type: 'apiKey', in: 'header', name: 'X-API-Key' },
        },
      },
      security: [{ bearer: [] }, { apiKey: [] }],
    },
    transform: jsonSchemaTransform,
    transformObject,
  });
  await app.register(fastifySwaggerUi, { routePrefix: '/docs' });
}

/** Every schema comes twice, as input and as output; what nothing refers to is taken out. */
const transformObject: SwaggerTransformObject = (given) => {
  const document = jsonSchemaTransformObject(given);
  const schemas: object = ('components' in document && document.components?.schemas) || {};
  for (let names = Object.keys(schemas); ; names = Object.keys(schemas)) {
    // Taken out, a schema refers to nothing any more: once more, until all are referred to.
    const text = JSON.stringify(document);
    const unused = names.filter((name) => !text.includes(`"#/components/schemas/${name}"`));
    for (const name of unused) Reflect.deleteProperty(schemas, name);
    if (unused.length === 0) return document;
  }
};
