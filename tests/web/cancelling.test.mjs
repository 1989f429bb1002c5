// Aborting and stopping streamChat, and that nothing is left behind.

import assert from "node:assert/strict";
import { test } from "node:test";

import {
  CUT,
  HANG,
  assertCleanedUp,
  complete,
  random,
  eventually,
  frame,
  deferred,
  sleep,
  openStream,
  streamToCleanEnd,
  pendingTimers,
  errorBody,
  refusal,
  progress,
  stream,
  helloWorld,
  scriptedFetch,
} from "./scripted_fetch.mjs";

for (const [where, responses, ready] of [
  ["before it starts", [helloWorld], () => true],
  ["during the request", [HANG], ({ requests }) => requests.length],
  ["while reading", [stream(progress("a", "1"), HANG)], (_, { events }) => events.length],
  ["during a pause", [CUT], (_, { connections }) => connections.some(({ state }) => state === "waiting")],
]) {
  test(`no callback runs after an abort ${where}`, async () => {
    random.value = where === "during a pause" ? 1000 : 0;
    const script = scriptedFetch(...responses);
    const controller = new AbortController();
    const received = openStream({ fetch: script.fetch, signal: controller.signal });
    await eventually(() => ready(script, received));
    assert.ok(pendingTimers() <= 2, "one for the stream and one for the connection or pause");
    const reason = new Error("the user went away");

    const callbacks = received.events.length + received.connections.length;
    controller.abort(reason);

    await assert.rejects(received.reply.done, reason);
    await sleep(0.02);
    assert.equal(received.events.length + received.connections.length, callbacks);
    assert.equal(script.open, 0);
    assertCleanedUp(controller.signal);
  });
}

test("no callback runs after an abort in a callback, even for the same chunk", async () => {
  const controller = new AbortController();
  const { fetch } = scriptedFetch(stream(progress("a", "1") + progress("b", "2") + complete("ab", "3")));
  const received = openStream({
    fetch,
    signal: controller.signal,
    onEvent: (event) => (received.events.push(event), controller.abort()),
  });

  await assert.rejects(received.reply.done, { name: "AbortError" });

  assert.equal(received.events.length, 1);
  assertCleanedUp(controller.signal);
});

test("an aborted signal prevents the request", async () => {
  const { fetch, requests } = scriptedFetch(helloWorld);

  const { reply, events, connections } = openStream({ fetch, signal: AbortSignal.abort() });

  await assert.rejects(reply.done, { name: "AbortError" });
  assert.deepEqual([requests, events, connections], [[], [], []]);
  assertCleanedUp();
});

test("an abort causes no unhandled rejection, even after a stop", async () => {
  const controller = new AbortController();
  const script = scriptedFetch(stream(progress("a", "1"), HANG));
  const { events, reply } = openStream({ fetch: script.fetch, signal: controller.signal });
  await eventually(() => events.length);

  reply.stop();
  controller.abort();

  await sleep(0.02); // An unhandled rejection would end the process.
  assertCleanedUp(controller.signal);
});

test("a signal used for many replies collects no listeners", async () => {
  const { signal } = new AbortController();

  for (let i = 0; i < 20; i++) {
    const { fetch } = scriptedFetch(stream(progress("a", "1"), CUT), helloWorld);
    await streamToCleanEnd({ fetch, signal });
  }

  assertCleanedUp(signal);
});

// Stopping

const stopped = frame({ type: "stopped", response: { responses: ["a"] } }, "2");

function stoppable() {
  const { promise, resolve } = deferred();
  const script = scriptedFetch(stream(progress("a", "1"), promise));
  const { fetch } = script;
  script.fetch = async (url, init) => {
    const response = await fetch(url, init);
    if (url.endsWith("/stop") && response.ok) resolve(stopped);
    return response;
  };
  return script;
}

test("stop is requested and resolves with the last event", async () => {
  const script = stoppable();
  const received = openStream({ fetch: script.fetch, headers: { Authorization: "Bearer x" } });
  await eventually(() => received.events.length);

  const last = await received.reply.stop();

  assert.deepEqual([last.type, last, received.events.length], ["stopped", received.events.at(-1), 2]);
  assert.deepEqual(
    script.stops.map(({ url, method, headers }) => [url, method, headers.authorization]),
    [["http://chat.test/api/chat/stream/m-1/stop", "POST", "Bearer x"]],
  );
  assertCleanedUp();
});

test("a stop before the message id is known is sent once it is", async () => {
  const script = stoppable();
  const { reply } = openStream({ fetch: script.fetch });

  assert.equal((await reply.stop()).type, "stopped");
  assert.equal(script.stops.length, 1);
});

for (const [name, failure] of [
  ["was lost", CUT],
  ["was refused temporarily", refusal(503, errorBody("server_restarting"))],
]) {
  test(`a stop that ${name} is sent again`, async () => {
    const script = stoppable();
    script.stopResponses = [failure, refusal(202, {})];
    const received = openStream({ fetch: script.fetch });
    await eventually(() => received.events.length);

    assert.equal((await received.reply.stop()).type, "stopped");
    assert.equal(script.stops.length, 2);
    assertCleanedUp();
  });
}

test("a stop after the end changes nothing", async () => {
  const { reply, last } = await streamToCleanEnd({ fetch: scriptedFetch(helloWorld).fetch });

  assert.equal(await reply.stop(), last);
  assertCleanedUp();
});

test("a stop whose request hangs resolves when the reply ends", async () => {
  const { promise, resolve } = deferred();
  const script = scriptedFetch(stream(progress("a", "1"), promise));
  script.stopResponses = [HANG];
  const received = openStream({ fetch: script.fetch });
  await eventually(() => received.events.length);

  const stop = received.reply.stop();
  await eventually(() => script.stops.length);
  resolve(complete("a", "2"));

  assert.equal((await stop).type, "complete");
  assertCleanedUp();
});
