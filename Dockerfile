# One image for every process of Weir: `docker run … src/worker.ts`, `src/gateway.ts`, or `src/cli.ts <command>`.
# Node runs the TypeScript files directly, so nothing is compiled. glibc only: Temporal's core has no musl build.
ARG NODE_VERSION=24.21.0

FROM node:${NODE_VERSION}-bookworm-slim AS build
WORKDIR /app
COPY package.json package-lock.json ./
# No package that runs in production needs an install script; the `node` package, which does, is for development only: here the
# image's own Node runs everything. Temporal's core comes with a binary for each platform, and only Linux is needed.
RUN npm ci --omit=dev --ignore-scripts --no-audit --no-fund \
  && find node_modules/@temporalio/core-bridge/releases -mindepth 1 -maxdepth 1 -not -name '*-linux-gnu' -exec rm -r {} +
COPY config config
COPY src src
# Made once here: each worker would otherwise spend seconds and memory on it at every start.
RUN node src/cli.ts bundle --out /app/workflow-bundle.js

FROM node:${NODE_VERSION}-bookworm-slim
WORKDIR /app
COPY --from=build /app ./
COPY LICENSE ./
ENV WEIR_WORKFLOW_BUNDLE=/app/workflow-bundle.js
USER node
# 2112: worker, metrics and health. 8080: gateway.
EXPOSE 2112 8080
# The process itself gets SIGTERM, without npm or a shell in between; but run it with an init (`docker run --init`, `init: true`):
# as process 1 a command without a handler of its own would ignore the signal.
ENTRYPOINT ["node"]
CMD ["src/worker.ts"]
