// Follows a task with the browser's own EventSource. What a reader must know stands in `show`: which events add to a text, which replace
// it, and which begin everything anew. No build step and no library; the API is on the page's own origin.

const TASKS = '/api/v1/tasks';

/** EventSource gives out named events one name at a time. */
const TYPES = [
  ...['task_started', 'task_paused', 'task_resumed', 'task_completed', 'task_failed', 'task_cancelled'],
  ...['plan_ready', 'step_started', 'step_completed', 'step_failed'],
  ...['call_started', 'call_delta', 'call_completed', 'call_snapshot', 'attempt_reset', 'fallback'],
  ...['tool_started', 'tool_completed', 'tool_failed', 'rate_wait', 'backpressure'],
  ...['budget_threshold', 'budget_refused', 'approval_requested', 'approval_decided', 'degraded'],
  ...['reset', 'stream_end'],
];

const FIRST_RETRY_MS = 1_000;
const MAX_RETRY_MS = 30_000;

const element = (id) => document.getElementById(id);
const say = (id, text) => {
  element(id).textContent = text;
};
const count = (id) => say(id, String(Number(element(id).textContent) + 1));

// What a reader does with an event

/** The text of each call, by its key. */
let texts = new Map();

/** Where the text of an event's call is shown; emptied when another attempt writes it, which begins anew. */
function textOf(event) {
  const key = event.callKey ?? '';
  if (!texts.has(key)) {
    const place = document.createElement('pre');
    place.title = event.stepId ?? '';
    element('texts').append(place);
    texts.set(key, place);
  }
  const place = texts.get(key);
  if (place.dataset.attempt !== event.attempt) {
    place.dataset.attempt = event.attempt;
    place.textContent = '';
  }
  return place;
}

function show(event) {
  switch (event.type) {
    case 'call_delta':
      // The next piece.
      textOf(event).append(event.data.text);
      return;
    case 'call_snapshot':
      // All of the call's text so far: it replaces what was shown, since pieces in between are gone.
      textOf(event).textContent = event.data.text;
      return;
    case 'reset':
      // The position was not one of this stream: everything is told again from the beginning.
      clear();
      count('resets');
      return;
    case 'call_started':
      textOf(event);
      break;
    case 'attempt_reset':
      // Nothing of what this attempt has written counts.
      if (texts.get(event.callKey)?.dataset.attempt === event.attempt) textOf(event).textContent = '';
      break;
    case 'stream_end':
      say('status', event.data?.status ?? 'ended');
      break;
    default:
      say('status', event.type);
  }
  const line = document.createElement('li');
  line.value = event.seq;
  line.dataset.type = event.type;
  line.textContent = [event.type, event.message].filter(Boolean).join(': ');
  element('milestones').append(line);
}

function clear() {
  texts = new Map();
  element('texts').replaceChildren();
  element('milestones').replaceChildren();
}

// The connection

let source;
let lastEventId = '';
let retryMs = FIRST_RETRY_MS;

function follow(taskId) {
  source?.close();
  // EventSource sends its position when it comes back by itself; a new one has to be told.
  const after = lastEventId === '' ? '' : `?after=${encodeURIComponent(lastEventId)}`;
  source = new EventSource(`${TASKS}/${encodeURIComponent(taskId)}/stream${after}`);
  source.onopen = () => say('connection', 'connected');
  source.onerror = () => lost(taskId);
  for (const type of TYPES) source.addEventListener(type, take);
}

function take({ data, lastEventId: id }) {
  retryMs = FIRST_RETRY_MS;
  lastEventId = id;
  const event = JSON.parse(data);
  show(event);
  if (event.type !== 'stream_end') return;
  // The gateway closes the stream; without this the browser would come back and ask for more.
  source.close();
  say('connection', 'ended');
}

/** A connection that broke is made again by the browser; one that was answered with an error (a proxy whose gateway restarts) is not. */
async function lost(taskId) {
  count('reconnects');
  if (source.readyState !== EventSource.CLOSED) return say('connection', 'connection lost, coming back');
  const given = source;
  say('connection', 'no answer, trying again');
  // Not all pages in one instant, and later each time.
  await new Promise((resolve) => setTimeout(resolve, retryMs * (0.5 + Math.random())));
  retryMs = Math.min(MAX_RETRY_MS, retryMs * 2);
  if (source !== given) return;
  const answer = await fetch(`${TASKS}/${encodeURIComponent(taskId)}`).catch(() => undefined);
  if (source !== given) return;
  if (answer?.status === 404) return say('connection', 'there is no such task');
  follow(taskId);
}

// The form

function begin(taskId) {
  clear();
  lastEventId = '';
  for (const id of ['reconnects', 'resets']) say(id, '0');
  say('status', 'waiting');
  follow(taskId);
}

element('submit').addEventListener('submit', async (submitted) => {
  submitted.preventDefault();
  const { query, user } = Object.fromEntries(new FormData(submitted.target));
  say('status', 'submitting');
  const answer = await fetch(TASKS, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ query, userId: user }),
  });
  const body = await answer.json();
  if (!answer.ok) return say('status', body.detail ?? body.title);
  history.replaceState(null, '', `?task=${encodeURIComponent(body.taskId)}`);
  begin(body.taskId);
});

const asked = new URLSearchParams(location.search).get('task');
if (asked !== null) begin(asked);
