// Measures every request of the Temporal client, by service, method and status.

import { status as grpcStatus, InterceptingCall, type Interceptor } from '@grpc/grpc-js';

export type MeasureRpc = (
  labels: { service: string; method: string; status: string },
  seconds: number,
) => void;

/** A gRPC interceptor that tells of each request once its status is known. */
export function rpcMeasuring(measure: MeasureRpc): Interceptor {
  return (options, nextCall) => {
    const startedAt = performance.now();
    // `/temporal.api.workflowservice.v1.WorkflowService/StartWorkflowExecution`
    const [, service = 'unknown', method = 'unknown'] = options.method_definition.path.split('/');
    return new InterceptingCall(nextCall(options), {
      start: (metadata, _listener, next) =>
        next(metadata, {
          onReceiveStatus: (status, forward) => {
            const labels = {
              service: service.split('.').at(-1) ?? service,
              method,
              status: grpcStatus[status.code] ?? 'UNKNOWN',
            };
            measure(labels, (performance.now() - startedAt) / 1000);
            forward(status);
          },
        }),
    });
  };
}
