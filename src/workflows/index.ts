// What a worker's bundle enters: the workflow types that any Temporal client may start.

export { runTask } from './run-task.ts';
