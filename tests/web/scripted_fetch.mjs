// Shared by the tests of sse.js without a server: a scripted `fetch`, a fixed random value, and checks for leaks.

import assert from "node:assert/strict";
import { getEventListeners } from "node:events";
import { beforeEach, mock } from "node:test";

import { streamToEnd } from "./library.mjs";

export * from "./library.mjs";

/** The value of `Math.random()`: 0 unless a test sets it. */
export const random = { chance: 0 };
mock.method(Math, "random", () => random.value);
beforeEach(() => (random.value = 0));

const timers = new Set();
const { setTimeout: realSetTimeout, clearTimeout: realClearTimeout } = globalThis;
globalThis.setTimeout = (callback, milliseconds, ...rest) => {
  const timer = realSetTimeout(() => (timers.delete(timer), callback(...rest)), milliseconds);
  timers.add(timer);
  return timer;
};
globalThis.clearTimeout = (timer) => (timers.delete(timer), realClearTimeout(timer));

export const pendingTimers = () => timers.size;

/** A promise and its resolve function. */
export function deferred() {
  let resolve;
  const promise = new Promise((resolvePromise) => (resolve = resolvePromise));
  return { promise, resolve };
}

export const CUT = Symbol("the connection is reset");
export const HANG = Symbol("no more data");

/** A frame of the native protocol. */
export const frame = (content, id) => `data: ${JSON.stringify(content)}\n${id ? `id: ${id}\n` : ""}\n`;
export const progress = (text, id) => frame({ type: "progress", text }, id);
export const complete = (text, id) => frame({ type: "complete", response: { responses: [text] } }, id);

/** The body of an error response. */
export const errorBody = (code) => ({ error: `A sentence about ${code}.`, code, request_id: "r-1" });

/** A streamed response. Steps are text, bytes, promises of them, functions that return one, CUT or HANG. */
export const stream = (...steps) => ({ steps });
export const refusal = (status, content, headers = {}) => ({
  status,
  body: content === undefined ? null : typeof content === "string" ? content : JSON.stringify(content),
  headers: { "Content-Type": typeof content === "string" ? "text/html" : "application/json", ...headers },
});

export const helloWorld = stream(progress("Hello, ", "1"), progress("world", "2"), complete("Hello, world", "3"));

/** A `fetch` that records requests. They get the responses in order; the last one is repeated. */
export function scriptedFetch(...responses) {
  const requests = [];
  const stops = [];
  const script = { requests, stops, stopResponses: [refusal(202, { status: "stopping" })], open: 0 };
  script.fetch = async (url, init) => {
    init.signal.throwIfAborted();
    const [log, scripted] = url.endsWith("/stop") ? [stops, script.stopResponses] : [requests, responses];
    const { method, headers, body } = init;
    log.push({ url, method, headers: Object.fromEntries(headers), body: body && JSON.parse(body), at: performance.now() });
    const response = scripted[Math.min(log.length, scripted.length) - 1];
    if (response === CUT) throw new TypeError("fetch failed");
    if (response === HANG) return new Promise((_, reject) => whenAborted(init.signal, reject));
    if (response instanceof Response) return response;
    if (!response.steps) return new Response(response.body, response);
    return new Response(streamBody(response.steps, init.signal, script), {
      headers: { "Content-Type": "text/event-stream; charset=utf-8", "X-Message-ID": "m-1", ...response.headers },
    });
  };
  return script;
}

const whenAborted = (signal, callback) => signal.addEventListener("abort", () => callback(signal.reason), { once: true });

function streamBody(steps, signal, script) {
  const remaining = [...steps];
  script.open++;
  const finish = () => script.open--;
  return new ReadableStream({
    start: (controller) => whenAborted(signal, (reason) => controller.error(reason)),
    async pull(controller) {
      if (signal.aborted) return finish();
      const next = remaining.shift();
      const step = await (typeof next === "function" ? next() : next);
      if (signal.aborted) return finish();
      if (step === HANG) return new Promise((resolve) => whenAborted(signal, () => (finish(), resolve())));
      if (step === CUT) return (finish(), controller.error(new TypeError("terminated")));
      if (step === undefined) return (finish(), controller.close());
      controller.enqueue(typeof step === "string" ? new TextEncoder().encode(step) : step);
    },
  });
}

/** Like `streamToEnd`, and checks that no timer or listener is left. */
export async function streamToCleanEnd(options) {
  const received = await streamToEnd(options);
  assertCleanedUp(options.signal);
  return received;
}

export function assertCleanedUp(signal) {
  assert.equal(timers.size, 0, "no timer");
  if (signal) assert.equal(getEventListeners(signal, "abort").length, 0, "no listener");
}
