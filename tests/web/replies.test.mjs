// followReply: a conversation's stream, against a scripted `fetch`.

import assert from "node:assert/strict";
import { test } from "node:test";

import {
  CUT,
  HANG,
  assertNothingIsLeft,
  eventually,
  followReply,
  problem,
  refuse,
  stream,
  textOf,
  wire,
} from "./scripted.mjs";

const URL_ = "http://chat.test/api/conversations/c-1/stream?messageId=q-1&on_disconnect=continue";

const named = (event, content, id) => `event: ${event}\ndata: ${JSON.stringify(content)}\n${id ? `id: ${id}\n` : ""}\n`;
const token = (text, id) => named("token", { token: text }, id);
const done = (id) => named("done", { messageId: "r-1" }, id);
const nothing = () => new Response(null, { status: 204 });

function follow(options) {
  const heard = { events: [], connections: [] };
  const onEvent = (event) => heard.events.push(event);
  const onConnection = (connection) => heard.connections.push(connection);
  heard.answer = followReply({ url: URL_, onEvent, onConnection, ...options });
  return heard;
}

async function followToTheEnd(options) {
  const heard = follow(options);
  heard.last = await heard.answer.done;
  assert.equal(heard.events.at(-1), heard.last);
  assertNothingIsLeft(options.signal);
  return heard;
}

const states = ({ connections }) => connections.map(({ state }) => state);

test("a reply is followed from its first token to its end", async () => {
  const { fetch, requests } = wire(stream(":ok\n\n", token("Hello, ", "1"), token("world", "2"), done("3")));

  const heard = await followToTheEnd({ fetch });

  assert.deepEqual(heard.events, [
    { type: "progress", text: "Hello, " },
    { type: "progress", text: "world" },
    { type: "complete", messageId: "r-1" },
  ]);
  assert.deepEqual([requests.length, requests[0].method, requests[0].url, requests[0].headers], [1, "GET", URL_, {}]);
});

test("after a break it goes on from the last event", async () => {
  const { fetch, requests } = wire(stream(token("a", "1"), token("b", "é-2"), CUT), CUT, stream(token("c", "3"), done("4")));

  const heard = await followToTheEnd({ fetch });

  assert.equal(textOf(heard), "abc");
  assert.deepEqual([requests[2].method, requests[2].url], ["GET", URL_]);
  assert.equal(Buffer.from(requests[2].headers["last-event-id"], "latin1").toString(), "é-2");
  assert.deepEqual(states(heard), ["connecting", "open", "waiting", "connecting", "waiting", "connecting", "open"]);
});

for (const lastEventId of ["", "7"]) {
  test(`204 means that there is nothing to follow, ${lastEventId ? "after an event" : "from the start"}`, async () => {
    const heard = await followToTheEnd({ fetch: wire(nothing()).fetch, lastEventId });

    assert.deepEqual(heard.events, [{ type: "complete", messageId: null }]);
  });
}

test("a restart is told, and what is said again after it", async () => {
  const restarts = [named("restart", {}), token("a", "1"), named("restart", {}, "2")];
  const { fetch } = wire(stream(token("a", "1"), ...restarts, token("b", "3"), done("4")));

  const { events } = await followToTheEnd({ fetch });

  assert.deepEqual(
    events.map(({ type, text }) => text ?? type),
    ["a", "restart", "a", "restart", "b", "complete"],
  );
});

test("a failure ends it", async () => {
  const { fetch, requests } = wire(stream(token("a", "1"), named("failure", problem("upstream_error"), "2")));

  const { last } = await followToTheEnd({ fetch });

  assert.deepEqual([requests.length, last], [1, { type: "error", ...problem("upstream_error") }]);
});

test("a reply that a restarting server gave up begins again", async () => {
  const failure = named("failure", problem("server_restarting"));
  const draining = refuse(503, problem("server_restarting"));
  const { fetch, requests } = wire(stream(token("a", "1"), failure), draining, stream(token("b", "9"), done("10")));

  const { events } = await followToTheEnd({ fetch });

  assert.deepEqual(
    events.map(({ type, text }) => text ?? type),
    ["a", "restart", "b", "complete"],
  );
  assert.equal(requests[1].headers["last-event-id"], undefined);
});

test("while another reply is written it waits, for longer than it would for a server", async () => {
  const busy = refuse(409, problem("busy"), { "Retry-After": "0.02" });
  const { fetch, requests } = wire(busy, busy, busy, busy, stream(token("a", "1"), done("2")));

  const heard = await followToTheEnd({ fetch, giveUpAfterSeconds: 0.05 });

  assert.deepEqual([requests.length, heard.last.type], [5, "complete"]);
  assert.deepEqual(heard.connections[1], { state: "waiting", seconds: 0.02, failure: { type: "error", ...problem("busy") } });
});

test("a server that stays away is given up", async () => {
  const { last } = await followToTheEnd({ fetch: wire(CUT).fetch, giveUpAfterSeconds: 0.05 });

  assert.equal(last.code, "connection_lost");
});

test("stop ends it for everybody", async () => {
  const script = wire(stream(token("a", "1"), HANG), stream(named("stopped", { messageId: null }, "2")));
  const heard = follow({ fetch: script.fetch, idleTimeoutSeconds: 0.1 });
  await eventually(() => heard.events.length);

  assert.deepEqual(await heard.answer.stop(), { type: "stopped", messageId: null });
  assert.deepEqual([script.stops[0].method, script.stops[0].url], ["POST", "http://chat.test/api/conversations/c-1/stop"]);
  assertNothingIsLeft();
});

test("a stop before the reply has begun ends it when it has", async () => {
  const script = wire(stream(token("a", "1"), named("stopped", { messageId: "r-2" }, "2")));
  const heard = follow({ fetch: script.fetch });

  assert.deepEqual(await heard.answer.stop(), { type: "stopped", messageId: "r-2" });
  assert.equal(script.stops.length, 1);
});

test("a stop while another reply is written leaves that one alone", async () => {
  const script = wire(refuse(409, problem("busy"), { "Retry-After": "30" }));
  const heard = follow({ fetch: script.fetch });
  await eventually(() => states(heard).includes("waiting"));

  assert.deepEqual(await heard.answer.stop(), { type: "stopped", messageId: null });
  assert.equal(script.stops.length, 0);
  assertNothingIsLeft();
});

test("whoever leaves is told nothing more", async () => {
  const leaving = new AbortController();
  const heard = follow({ fetch: wire(stream(token("a", "1"), HANG)).fetch, signal: leaving.signal });
  await eventually(() => heard.events.length);

  leaving.abort();

  await assert.rejects(heard.answer.done, { name: "AbortError" });
  assert.equal(heard.events.length, 1);
  assertNothingIsLeft(leaving.signal);
});

test("what has another name is not told", async () => {
  const others = [named("citation", { verse: "John 1:1" }), named("constructor", {}), "data: {}\n\n"];
  const { fetch } = wire(stream(...others, done("2")));

  assert.deepEqual((await followToTheEnd({ fetch })).events, [{ type: "complete", messageId: "r-1" }]);
});
