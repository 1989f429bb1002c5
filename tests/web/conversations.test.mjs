// followReply against a scripted `fetch`.

import assert from "node:assert/strict";
import { test } from "node:test";

import {
  CUT,
  HANG,
  assertCleanedUp,
  eventually,
  followReply,
  errorBody,
  refusal,
  stream,
  textOf,
  scriptedFetch,
} from "./scripted_fetch.mjs";

const URL_ = "http://chat.test/api/conversations/c-1/stream?messageId=q-1&on_disconnect=continue";

const named = (event, content, id) => `event: ${event}\ndata: ${JSON.stringify(content)}\n${id ? `id: ${id}\n` : ""}\n`;
const token = (text, id) => named("token", { token: text }, id);
const done = (id) => named("done", { messageId: "r-1" }, id);
const nothing = () => new Response(null, { status: 204 });

function follow(options) {
  const received = { events: [], connections: [] };
  const onEvent = (event) => received.events.push(event);
  const onConnection = (connection) => received.connections.push(connection);
  received.reply = followReply({ url: URL_, onEvent, onConnection, ...options });
  return received;
}

async function followToCleanEnd(options) {
  const received = follow(options);
  received.last = await received.reply.done;
  assert.equal(received.events.at(-1), received.last);
  assertCleanedUp(options.signal);
  return received;
}

const states = ({ connections }) => connections.map(({ state }) => state);

test("a reply is followed from its first token to its end", async () => {
  const { fetch, requests } = scriptedFetch(stream(":ok\n\n", token("Hello, ", "1"), token("world", "2"), done("3")));

  const received = await followToCleanEnd({ fetch });

  assert.deepEqual(received.events, [
    { type: "progress", text: "Hello, " },
    { type: "progress", text: "world" },
    { type: "complete", messageId: "r-1" },
  ]);
  assert.deepEqual([requests.length, requests[0].method, requests[0].url, requests[0].headers], [1, "GET", URL_, {}]);
});

test("after an interruption it resumes from the last event", async () => {
  const first = stream(token("a", "1"), token("b", "é-2"), CUT);
  const { fetch, requests } = scriptedFetch(first, CUT, stream(token("c", "3"), done("4")));

  const received = await followToCleanEnd({ fetch });

  assert.equal(textOf(received), "abc");
  assert.deepEqual([requests[2].method, requests[2].url], ["GET", URL_]);
  assert.equal(Buffer.from(requests[2].headers["last-event-id"], "latin1").toString(), "é-2");
  assert.deepEqual(states(received), ["connecting", "open", "waiting", "connecting", "waiting", "connecting", "open"]);
});

for (const lastEventId of ["", "7"]) {
  test(`204 means that there is nothing to follow, ${lastEventId ? "after an event" : "from the start"}`, async () => {
    const received = await followToCleanEnd({ fetch: scriptedFetch(nothing()).fetch, lastEventId });

    assert.deepEqual(received.events, [{ type: "complete", messageId: null }]);
  });
}

test("a restart is delivered, and the events repeated after it", async () => {
  const restarts = [named("restart", {}), token("a", "1"), named("restart", {}, "2")];
  const { fetch } = scriptedFetch(stream(token("a", "1"), ...restarts, token("b", "3"), done("4")));

  const { events } = await followToCleanEnd({ fetch });

  assert.deepEqual(
    events.map(({ type, text }) => text ?? type),
    ["a", "restart", "a", "restart", "b", "complete"],
  );
});

test("a failure ends the reply", async () => {
  const { fetch, requests } = scriptedFetch(stream(token("a", "1"), named("failure", errorBody("upstream_error"), "2")));

  const { last } = await followToCleanEnd({ fetch });

  assert.deepEqual([requests.length, last], [1, { type: "error", ...errorBody("upstream_error") }]);
});

test("a reply interrupted by a restarting server starts again", async () => {
  const failure = named("failure", errorBody("server_restarting"));
  const draining = refusal(503, errorBody("server_restarting"));
  const { fetch, requests } = scriptedFetch(stream(token("a", "1"), failure), draining, stream(token("b", "9"), done("10")));

  const { events } = await followToCleanEnd({ fetch });

  assert.deepEqual(
    events.map(({ type, text }) => text ?? type),
    ["a", "restart", "b", "complete"],
  );
  assert.equal(requests[1].headers["last-event-id"], undefined);
});

test("waiting for another reply is not limited by giveUpAfterSeconds", async () => {
  const busy = refusal(409, errorBody("busy"), { "Retry-After": "0.02" });
  const { fetch, requests } = scriptedFetch(busy, busy, busy, busy, stream(token("a", "1"), done("2")));

  const received = await followToCleanEnd({ fetch, giveUpAfterSeconds: 0.05 });

  assert.deepEqual([requests.length, received.last.type], [5, "complete"]);
  assert.deepEqual(received.connections[1], { state: "waiting", seconds: 0.02, failure: { type: "error", ...errorBody("busy") } });
});

test("a server that stays unreachable ends the stream with connection_lost", async () => {
  const { last } = await followToCleanEnd({ fetch: scriptedFetch(CUT).fetch, giveUpAfterSeconds: 0.05 });

  assert.equal(last.code, "connection_lost");
});

test("stop ends the reply for every reader", async () => {
  const script = scriptedFetch(stream(token("a", "1"), HANG), stream(named("stopped", { messageId: null }, "2")));
  const received = follow({ fetch: script.fetch, idleTimeoutSeconds: 0.1 });
  await eventually(() => received.events.length);

  assert.deepEqual(await received.reply.stop(), { type: "stopped", messageId: null });
  assert.deepEqual([script.stops[0].method, script.stops[0].url], ["POST", "http://chat.test/api/conversations/c-1/stop"]);
  assertCleanedUp();
});

test("a stop before the reply starts ends it once it has started", async () => {
  const script = scriptedFetch(stream(token("a", "1"), named("stopped", { messageId: "r-2" }, "2")));
  const received = follow({ fetch: script.fetch });

  assert.deepEqual(await received.reply.stop(), { type: "stopped", messageId: "r-2" });
  assert.equal(script.stops.length, 1);
});

test("a stop while waiting for another reply does not stop that reply", async () => {
  const script = scriptedFetch(refusal(409, errorBody("busy"), { "Retry-After": "30" }));
  const received = follow({ fetch: script.fetch });
  await eventually(() => states(received).includes("waiting"));

  assert.deepEqual(await received.reply.stop(), { type: "stopped", messageId: null });
  assert.equal(script.stops.length, 0);
  assertCleanedUp();
});

test("no callback runs after an abort", async () => {
  const leaving = new AbortController();
  const received = follow({ fetch: scriptedFetch(stream(token("a", "1"), HANG)).fetch, signal: leaving.signal });
  await eventually(() => received.events.length);

  leaving.abort();

  await assert.rejects(received.reply.done, { name: "AbortError" });
  assert.equal(received.events.length, 1);
  assertCleanedUp(leaving.signal);
});

test("unknown events are not delivered", async () => {
  const others = [named("citation", { verse: "John 1:1" }), named("constructor", {}), "data: {}\n\n"];
  const { fetch } = scriptedFetch(stream(...others, done("2")));

  assert.deepEqual((await followToCleanEnd({ fetch })).events, [{ type: "complete", messageId: "r-1" }]);
});
