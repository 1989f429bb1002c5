// How streamChat goes on after breaks, and how long it waits before it does.

import assert from "node:assert/strict";
import { mock, test } from "node:test";

import {
  CUT,
  HANG,
  complete,
  dice,
  eventually,
  frame,
  gate,
  later,
  listen,
  listenToTheEnd,
  problem,
  refuse,
  said,
  stream,
  textOf,
  whole,
  wire,
} from "./scripted.mjs";

test("after a cut it goes on from the last event", async () => {
  const { fetch, requests } = wire(
    stream(said("Hel", "1"), said("lo", "2"), 'data: {"type":"prog', CUT),
    stream(complete("Hello", "3")),
  );

  const heard = await listenToTheEnd({ fetch });

  assert.equal(textOf(heard), "Hello");
  assert.deepEqual(
    requests.map(({ method, url }) => [method, url]),
    [
      ["POST", "http://chat.test/api/chat/stream"],
      ["GET", "http://chat.test/api/chat/stream/m-1"],
    ],
  );
  assert.equal(requests[1].headers["last-event-id"], "2");
  assert.deepEqual(
    heard.connections.map(({ state }) => state),
    ["connecting", "open", "waiting", "connecting", "open"],
  );
  assert.equal(heard.connections[2].failure.code, "connection_lost");
});

test("a clean end without a last event is a break too", async () => {
  const { fetch, requests } = wire(stream(said("a", "1")), stream(), whole);

  await listenToTheEnd({ fetch });

  assert.equal(requests.length, 3);
});

test("events that come again are not told again", async () => {
  const { fetch } = wire(
    stream(said("a", "1"), said("b", "2"), CUT),
    stream(said("a", "1"), said("b", "2"), said("c", "3"), complete("abc", "4")),
  );

  assert.equal(textOf(await listenToTheEnd({ fetch })), "abc");
});

test("a last event is told though its id is an old one", async () => {
  const { fetch } = wire(stream(said("a", "1"), frame({ type: "error", error: "It broke.", code: "upstream_error" }, "1")));

  assert.equal((await listenToTheEnd({ fetch })).last.code, "upstream_error");
});

test("an event without an id is no place to go on from", async () => {
  const { fetch, requests } = wire(stream(said("a", "1"), CUT), stream(said("b"), CUT), stream(complete("ab", "3")));

  assert.equal(textOf(await listenToTheEnd({ fetch })), "ab");
  assert.deepEqual(
    requests.map(({ headers }) => headers["last-event-id"]),
    [undefined, "1", "1"],
  );
});

test("events without an id that come again after the last id are told once", async () => {
  const { fetch } = wire(
    stream(said("a", "1"), said("b"), said("c"), CUT),
    stream(said("b"), CUT),
    stream(said("b"), said("c"), said("d", "4"), said("e"), CUT),
    stream(said("e"), complete("abcde", "6")),
  );

  assert.equal(textOf(await listenToTheEnd({ fetch })), "abcde");
});

const restart = (id) => frame({ type: "restart" }, id);
const told = ({ events }) => events.map(({ type, text }) => text ?? type);

test("a restart is told where it stands, and what is said again after it", async () => {
  const processing = frame({ type: "status", message: "Processing..." }, "3");
  const { fetch } = wire(stream(said("a", "1"), restart("2"), processing, said("a", "4"), said("b", "5"), complete("ab", "6")));

  assert.deepEqual(told(await listenToTheEnd({ fetch })), ["a", "restart", "status", "a", "b", "complete"]);
});

test("after a cut behind a restart it goes on from there, and the restart is told once", async () => {
  const { fetch, requests } = wire(
    stream(said("a", "1"), restart("2"), CUT),
    stream(said("a", "1"), restart("2"), said("b", "3"), CUT),
    stream(complete("b", "4")),
  );

  assert.deepEqual(told(await listenToTheEnd({ fetch })), ["a", "restart", "b", "complete"]);
  assert.deepEqual(
    requests.map(({ headers }) => headers["last-event-id"]),
    [undefined, "2", "3"],
  );
});

test("where events have no ids, what was told before a restart and after it comes once", async () => {
  const again = [said("a"), restart(), said("b")];
  const { fetch } = wire(stream(...again, CUT), stream(...again, said("c"), complete("bc")));

  assert.deepEqual(told(await listenToTheEnd({ fetch })), ["a", "restart", "b", "c", "complete"]);
});

test("an answer whose end was seen is read again without its restart", async () => {
  const ended = new Response(null, { status: 204 });
  const { fetch } = wire(ended, stream(said("a", "1"), restart("2"), said("b", "3"), complete("b", "4")));

  assert.deepEqual(told(await listenToTheEnd({ fetch, messageId: "m-1", lastEventId: "4" })), ["complete"]);
});

test("an id goes back as the bytes in which it came", async () => {
  const { fetch, requests } = wire(stream(said("a", "é-日本"), CUT), stream(complete("a", "3")));

  await listenToTheEnd({ fetch });

  assert.equal(Buffer.from(requests[1].headers["last-event-id"], "latin1").toString(), "é-日本");
});

test("where events have no ids, an answer that begins anew is told on", async () => {
  const status = frame({ type: "status", message: "Processing..." });
  const beat = frame({ type: "keepalive" });
  const { fetch, requests } = wire(
    stream(status, beat, said("a"), beat, CUT),
    stream(status, said("a"), CUT),
    stream(beat, status, CUT),
    stream(status, said("a"), said("b"), said("b"), complete("abb")),
  );

  const heard = await listenToTheEnd({ fetch });

  assert.equal(textOf(heard), "abb");
  assert.equal(heard.events.length, 5);
  assert.deepEqual(
    requests.map(({ headers }) => headers["last-event-id"]),
    [undefined, undefined, undefined, undefined],
  );
});

test("a message whose first response never came is sent again under the same name", async () => {
  const { fetch, requests } = wire(CUT, CUT, whole);

  const { answer } = await listenToTheEnd({ fetch });

  assert.deepEqual(
    requests.map(({ method }) => method),
    ["POST", "POST", "POST"],
  );
  assert.deepEqual(new Set(requests.map(({ body }) => body.client_message_id)), new Set([answer.clientMessageId]));
});

test("an answer whose id cannot be read is asked for by its message's name, and told once", async () => {
  const hidden = { "X-Message-ID": "" };
  const { fetch, requests } = wire(
    { ...stream(said("a", "1"), CUT), headers: hidden },
    stream(said("a", "1"), complete("a", "2")),
  );

  const heard = await listenToTheEnd({ fetch });

  assert.deepEqual([requests[1].method, textOf(heard)], ["POST", "a"]);
});

test("a line that is silent for too long is dropped", async () => {
  const { fetch, requests } = wire(HANG, stream(said("a", "1"), HANG), stream(complete("a", "2")));

  await listenToTheEnd({ fetch, idleTimeoutSeconds: 0.05 });

  assert.deepEqual(
    requests.map(({ method }) => method),
    ["POST", "POST", "GET"],
  );
});

test("whatever comes keeps a line alive, and nothing but silence ends it", async () => {
  mock.timers.enable({ apis: ["setTimeout", "Date"] });
  const beats = [": keepalive\n\n", frame({ type: "keepalive" }), "data: half", " a frame", "\n\n"];
  const gates = beats.map(gate);
  const { fetch, requests } = wire(stream(...gates.map(({ opened }) => opened), HANG), whole);
  const heard = listen({ fetch });
  await eventually(() => heard.connections.length === 2);

  for (const [index, { open }] of gates.entries()) {
    mock.timers.tick(44_000);
    open(beats[index]);
    await later(0);
  }
  mock.timers.tick(44_000);
  assert.equal(requests.length, 1);
  mock.timers.tick(2_000);
  await eventually(() => heard.connections.length >= 3);
  mock.timers.reset();

  assert.equal((await heard.answer.done).type, "complete");
});

test("what follows the last event is not told", async () => {
  const { fetch } = wire(stream(complete("a", "1") + said("b", "2") + complete("b", "3"), HANG));

  const { events } = await listenToTheEnd({ fetch });

  assert.equal(events.length, 1);
});

test("what is no event of ours is not told", async () => {
  const nonsense = ["data: [DONE]\n\n", "data: {\n\n", "data: null\n\n", 'data: {"type":1}\n\n', "event: x\n\n", ": hello\n\n"];
  const { fetch, requests } = wire(stream(...nonsense, complete("a", "1")));

  assert.equal((await listenToTheEnd({ fetch })).events.length, 1);
  assert.equal(requests.length, 1);
});

// Pauses

test("pauses grow, with full jitter, up to a bound, and shrink when something was told", async () => {
  dice.chance = 0.001;
  const { fetch } = wire(CUT, CUT, CUT, CUT, CUT, CUT, CUT, stream(said("a", "1"), CUT), whole);

  const { connections } = await listenToTheEnd({ fetch });

  const seconds = connections.flatMap((connection) => connection.seconds ?? []);
  assert.deepEqual(
    seconds.map((one) => Math.round(one * 10_000)),
    [5, 10, 20, 40, 80, 100, 100, 5],
  );
});

test("the server says with retry how soon to come back", async () => {
  const { fetch } = wire(stream(`retry: 70\n${said("a", "1")}`), stream(said("b", "2"), CUT), CUT, whole);

  const { connections } = await listenToTheEnd({ fetch });

  assert.deepEqual(
    connections.flatMap(({ seconds }) => seconds ?? []),
    [0.07, 0.07, 0.07],
  );
});

for (const [status, code] of [
  [429, "too_many_requests"],
  [503, "server_restarting"],
  [503, "server_full"],
]) {
  test(`${status} ${code} passes: the message is sent again when the server says`, async () => {
    const { fetch, requests } = wire(refuse(status, problem(code), { "Retry-After": "0.06" }), whole);

    const { connections, last } = await listenToTheEnd({ fetch });

    assert.deepEqual(connections[1], { state: "waiting", seconds: 0.06, failure: { type: "error", ...problem(code) } });
    assert.deepEqual([requests.length, last.type], [2, "complete"]);
  });
}

test("Retry-After may be a date", async () => {
  const { fetch } = wire(
    refuse(429, problem("too_many_requests"), { "Retry-After": new Date(Date.now() + 1500).toUTCString() }),
    whole,
  );

  const { connections } = await listenToTheEnd({ fetch });

  assert.ok(connections[1].seconds >= 0 && connections[1].seconds <= 1.5, connections[1].seconds);
});

test("what the server forbids for longer than we are patient is told at once", async () => {
  const { fetch, requests } = wire(refuse(429, problem("too_many_requests"), { "Retry-After": "3600" }));

  const { last } = await listenToTheEnd({ fetch });

  assert.deepEqual([requests.length, last.code], [1, "too_many_requests"]);
});

for (const page of [undefined, "<h1>Bad gateway</h1>"]) {
  test(`a proxy's 502 passes, ${page ?? "empty"}`, async () => {
    const { fetch, requests } = wire(refuse(502, page), whole);

    await listenToTheEnd({ fetch });

    assert.equal(requests.length, 2);
  });
}

test("an answer that exists is asked for again whatever keeps the server from it", async () => {
  const answers = [500, 502, 503, 504, 429].map((status) => refuse(status, problem(`code_${status}`)));
  const { fetch, requests } = wire(stream(said("a", "1"), CUT), ...answers, stream(complete("a", "2")));

  await listenToTheEnd({ fetch });

  assert.equal(requests.length, 7);
});
