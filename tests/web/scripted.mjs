// What the tests of sse.js without a server share: a `fetch` that answers from a script, dice, and what is left behind.

import assert from "node:assert/strict";
import { getEventListeners } from "node:events";
import { beforeEach, mock } from "node:test";

import { hearOut } from "./library.mjs";

export * from "./library.mjs";

/** What `Math.random()` gives: 0 unless a test says otherwise. */
export const dice = { chance: 0 };
mock.method(Math, "random", () => dice.chance);
beforeEach(() => (dice.chance = 0));

const timers = new Set();
const { setTimeout: begin, clearTimeout: cancel } = globalThis;
globalThis.setTimeout = (callback, milliseconds, ...rest) => {
  const timer = begin(() => (timers.delete(timer), callback(...rest)), milliseconds);
  timers.add(timer);
  return timer;
};
globalThis.clearTimeout = (timer) => (timers.delete(timer), cancel(timer));

export const pendingTimers = () => timers.size;

/** A promise, and what keeps it. */
export function gate() {
  let open;
  const opened = new Promise((resolve) => (open = resolve));
  return { opened, open };
}

export const CUT = Symbol("the connection is reset");
export const HANG = Symbol("nothing comes any more");

/** A frame of ours. */
export const frame = (content, id) => `data: ${JSON.stringify(content)}\n${id ? `id: ${id}\n` : ""}\n`;
export const said = (text, id) => frame({ type: "progress", text }, id);
export const complete = (text, id) => frame({ type: "complete", response: { responses: [text] } }, id);

/** What a refusal of ours holds. */
export const problem = (code) => ({ error: `A sentence about ${code}.`, code, request_id: "r-1" });

/** An answer that streams: text, bytes, promises of them or functions that make one, CUT or HANG; then it ends cleanly. */
export const stream = (...steps) => ({ steps });
export const refuse = (status, content, headers = {}) => ({
  status,
  body: content === undefined ? null : typeof content === "string" ? content : JSON.stringify(content),
  headers: { "Content-Type": typeof content === "string" ? "text/html" : "application/json", ...headers },
});

export const whole = stream(said("Hello, ", "1"), said("world", "2"), complete("Hello, world", "3"));

/** `fetch` and what it was asked: the first request gets the first answer, the last one serves all that come after. */
export function wire(...answers) {
  const requests = [];
  const stops = [];
  const script = { requests, stops, stopped: [refuse(202, { status: "stopping" })], open: 0 };
  script.fetch = async (url, init) => {
    init.signal.throwIfAborted();
    const [asked, mine] = url.endsWith("/stop") ? [stops, script.stopped] : [requests, answers];
    const { method, headers, body } = init;
    asked.push({ url, method, headers: Object.fromEntries(headers), body: body && JSON.parse(body), at: performance.now() });
    const answer = mine[Math.min(asked.length, mine.length) - 1];
    if (answer === CUT) throw new TypeError("fetch failed");
    if (answer === HANG) return new Promise((_, reject) => whenAborted(init.signal, reject));
    if (answer instanceof Response) return answer;
    if (!answer.steps) return new Response(answer.body, answer);
    return new Response(play(answer.steps, init.signal, script), {
      headers: { "Content-Type": "text/event-stream; charset=utf-8", "X-Message-ID": "m-1", ...answer.headers },
    });
  };
  return script;
}

const whenAborted = (signal, tell) => signal.addEventListener("abort", () => tell(signal.reason), { once: true });

function play(steps, signal, script) {
  const left = [...steps];
  script.open++;
  const over = () => script.open--;
  return new ReadableStream({
    start: (controller) => whenAborted(signal, (reason) => controller.error(reason)),
    async pull(controller) {
      if (signal.aborted) return over();
      const next = left.shift();
      const step = await (typeof next === "function" ? next() : next);
      if (signal.aborted) return over();
      if (step === HANG) return new Promise((resolve) => whenAborted(signal, () => (over(), resolve())));
      if (step === CUT) return (over(), controller.error(new TypeError("terminated")));
      if (step === undefined) return (over(), controller.close());
      controller.enqueue(typeof step === "string" ? new TextEncoder().encode(step) : step);
    },
  });
}

/** As `hearOut`, of an answer that is alone: it leaves nothing behind. */
export async function listenToTheEnd(options) {
  const heard = await hearOut(options);
  assertNothingIsLeft(options.signal);
  return heard;
}

export function assertNothingIsLeft(signal) {
  assert.equal(timers.size, 0, "no timer");
  if (signal) assert.equal(getEventListeners(signal, "abort").length, 0, "no listener");
}
