// How streamChat resumes after interruptions, and how long it waits before.

import assert from "node:assert/strict";
import { mock, test } from "node:test";

import {
  CUT,
  HANG,
  complete,
  random,
  eventually,
  frame,
  deferred,
  sleep,
  openStream,
  streamToCleanEnd,
  errorBody,
  refusal,
  progress,
  stream,
  textOf,
  helloWorld,
  scriptedFetch,
} from "./scripted_fetch.mjs";

test("after a reset it resumes from the last event", async () => {
  const { fetch, requests } = scriptedFetch(
    stream(progress("Hel", "1"), progress("lo", "2"), 'data: {"type":"prog', CUT),
    stream(complete("Hello", "3")),
  );

  const received = await streamToCleanEnd({ fetch });

  assert.equal(textOf(received), "Hello");
  assert.deepEqual(
    requests.map(({ method, url }) => [method, url]),
    [
      ["POST", "http://chat.test/api/chat/stream"],
      ["GET", "http://chat.test/api/chat/stream/m-1"],
    ],
  );
  assert.equal(requests[1].headers["last-event-id"], "2");
  assert.deepEqual(
    received.connections.map(({ state }) => state),
    ["connecting", "open", "waiting", "connecting", "open"],
  );
  assert.equal(received.connections[2].failure.code, "connection_lost");
});

test("a clean end without a terminal event is an interruption", async () => {
  const { fetch, requests } = scriptedFetch(stream(progress("a", "1")), stream(), helloWorld);

  await streamToCleanEnd({ fetch });

  assert.equal(requests.length, 3);
});

test("repeated events are not delivered again", async () => {
  const { fetch } = scriptedFetch(
    stream(progress("a", "1"), progress("b", "2"), CUT),
    stream(progress("a", "1"), progress("b", "2"), progress("c", "3"), complete("abc", "4")),
  );

  assert.equal(textOf(await streamToCleanEnd({ fetch })), "abc");
});

test("a terminal event with an old id is delivered", async () => {
  const error = frame({ type: "error", error: "It broke.", code: "upstream_error" }, "1");
  const { fetch } = scriptedFetch(stream(progress("a", "1"), error));

  assert.equal((await streamToCleanEnd({ fetch })).last.code, "upstream_error");
});

test("an event without an id does not change the resume point", async () => {
  const first = stream(progress("a", "1"), CUT);
  const { fetch, requests } = scriptedFetch(first, stream(progress("b"), CUT), stream(complete("ab", "3")));

  assert.equal(textOf(await streamToCleanEnd({ fetch })), "ab");
  assert.deepEqual(
    requests.map(({ headers }) => headers["last-event-id"]),
    [undefined, "1", "1"],
  );
});

test("events without an id that are repeated after the last id are delivered once", async () => {
  const { fetch } = scriptedFetch(
    stream(progress("a", "1"), progress("b"), progress("c"), CUT),
    stream(progress("b"), CUT),
    stream(progress("b"), progress("c"), progress("d", "4"), progress("e"), CUT),
    stream(progress("e"), complete("abcde", "6")),
  );

  assert.equal(textOf(await streamToCleanEnd({ fetch })), "abcde");
});

const restart = (id) => frame({ type: "restart" }, id);
const summary = ({ events }) => events.map(({ type, text }) => text ?? type);

test("a restart is delivered in order, and the events repeated after it", async () => {
  const processing = frame({ type: "status", message: "Processing..." }, "3");
  const repeated = [processing, progress("a", "4"), progress("b", "5"), complete("ab", "6")];
  const { fetch } = scriptedFetch(stream(progress("a", "1"), restart("2"), ...repeated));

  assert.deepEqual(summary(await streamToCleanEnd({ fetch })), ["a", "restart", "status", "a", "b", "complete"]);
});

test("a restart with the lowest id is followed by ids that were delivered before", async () => {
  const again = [restart("0-1"), progress("a", "1"), progress("b", "3"), complete("ab", "4")];
  const { fetch } = scriptedFetch(stream(progress("a", "1"), progress("lost", "2"), ...again));

  assert.deepEqual(summary(await streamToCleanEnd({ fetch })), ["a", "lost", "restart", "a", "b", "complete"]);
});

test("a reset after a restart resumes from there, and the restart is delivered once", async () => {
  const { fetch, requests } = scriptedFetch(
    stream(progress("a", "1"), restart("2"), CUT),
    stream(progress("a", "1"), restart("2"), progress("b", "3"), CUT),
    stream(complete("b", "4")),
  );

  assert.deepEqual(summary(await streamToCleanEnd({ fetch })), ["a", "restart", "b", "complete"]);
  assert.deepEqual(
    requests.map(({ headers }) => headers["last-event-id"]),
    [undefined, "2", "3"],
  );
});

test("without ids, events before and after a restart are delivered once", async () => {
  const repeated = [progress("a"), restart(), progress("b")];
  const { fetch } = scriptedFetch(stream(...repeated, CUT), stream(...repeated, progress("c"), complete("bc")));

  assert.deepEqual(summary(await streamToCleanEnd({ fetch })), ["a", "restart", "b", "c", "complete"]);
});

test("resuming after the last event delivers no restart", async () => {
  const ended = new Response(null, { status: 204 });
  const { fetch } = scriptedFetch(ended, stream(progress("a", "1"), restart("2"), progress("b", "3"), complete("b", "4")));

  assert.deepEqual(summary(await streamToCleanEnd({ fetch, messageId: "m-1", lastEventId: "4" })), ["complete"]);
});

test("an id is sent back as the bytes that were received", async () => {
  const { fetch, requests } = scriptedFetch(stream(progress("a", "é-日本"), CUT), stream(complete("a", "3")));

  await streamToCleanEnd({ fetch });

  assert.equal(Buffer.from(requests[1].headers["last-event-id"], "latin1").toString(), "é-日本");
});

test("without ids, a reply that is sent from its start continues", async () => {
  const status = frame({ type: "status", message: "Processing..." });
  const heartbeat = frame({ type: "keepalive" });
  const { fetch, requests } = scriptedFetch(
    stream(status, heartbeat, progress("a"), heartbeat, CUT),
    stream(status, progress("a"), CUT),
    stream(heartbeat, status, CUT),
    stream(status, progress("a"), progress("b"), progress("b"), complete("abb")),
  );

  const received = await streamToCleanEnd({ fetch });

  assert.equal(textOf(received), "abb");
  assert.equal(received.events.length, 5);
  assert.deepEqual(
    requests.map(({ headers }) => headers["last-event-id"]),
    [undefined, undefined, undefined, undefined],
  );
});

test("a message without a response is sent again with the same key", async () => {
  const { fetch, requests } = scriptedFetch(CUT, CUT, helloWorld);

  const { reply } = await streamToCleanEnd({ fetch });

  assert.deepEqual(
    requests.map(({ method }) => method),
    ["POST", "POST", "POST"],
  );
  assert.deepEqual(new Set(requests.map(({ body }) => body.client_message_id)), new Set([reply.clientMessageId]));
});

test("a reply whose message id is hidden is resumed by its idempotency key", async () => {
  const hidden = { "X-Message-ID": "" };
  const { fetch, requests } = scriptedFetch(
    { ...stream(progress("a", "1"), CUT), headers: hidden },
    stream(progress("a", "1"), complete("a", "2")),
  );

  const received = await streamToCleanEnd({ fetch });

  assert.deepEqual([requests[1].method, textOf(received)], ["POST", "a"]);
});

test("a connection is dropped after idleTimeoutSeconds", async () => {
  const { fetch, requests } = scriptedFetch(HANG, stream(progress("a", "1"), HANG), stream(complete("a", "2")));

  await streamToCleanEnd({ fetch, idleTimeoutSeconds: 0.05 });

  assert.deepEqual(
    requests.map(({ method }) => method),
    ["POST", "POST", "GET"],
  );
});

test("any byte resets the idle timeout", async () => {
  mock.timers.enable({ apis: ["setTimeout", "Date"] });
  const chunks = [": keepalive\n\n", frame({ type: "keepalive" }), "data: half", " a frame", "\n\n"];
  const deferreds = chunks.map(deferred);
  const { fetch, requests } = scriptedFetch(stream(...deferreds.map(({ promise }) => promise), HANG), helloWorld);
  const received = openStream({ fetch });
  await eventually(() => received.connections.length === 2);

  for (const [index, { resolve }] of deferreds.entries()) {
    mock.timers.tick(44_000);
    resolve(chunks[index]);
    await sleep(0);
  }
  mock.timers.tick(44_000);
  assert.equal(requests.length, 1);
  mock.timers.tick(2_000);
  await eventually(() => received.connections.length >= 3);
  mock.timers.reset();

  assert.equal((await received.reply.done).type, "complete");
});

test("events after the terminal event are not delivered", async () => {
  const { fetch } = scriptedFetch(stream(complete("a", "1") + progress("b", "2") + complete("b", "3"), HANG));

  const { events } = await streamToCleanEnd({ fetch });

  assert.equal(events.length, 1);
});

test("unknown events are not delivered", async () => {
  const nonsense = ["data: [DONE]\n\n", "data: {\n\n", "data: null\n\n", 'data: {"type":1}\n\n', "event: x\n\n", ": hello\n\n"];
  const { fetch, requests } = scriptedFetch(stream(...nonsense, complete("a", "1")));

  assert.equal((await streamToCleanEnd({ fetch })).events.length, 1);
  assert.equal(requests.length, 1);
});

// Pauses

test("pauses grow with full jitter up to a maximum, and an event resets them", async () => {
  random.value = 0.001;
  const { fetch } = scriptedFetch(CUT, CUT, CUT, CUT, CUT, CUT, CUT, stream(progress("a", "1"), CUT), helloWorld);

  const { connections } = await streamToCleanEnd({ fetch });

  const seconds = connections.flatMap((connection) => connection.seconds ?? []);
  assert.deepEqual(
    seconds.map((pause) => Math.round(pause * 10_000)),
    [5, 10, 20, 40, 80, 100, 100, 5],
  );
});

test("the server's retry sets the shortest pause", async () => {
  const { fetch } = scriptedFetch(stream(`retry: 70\n${progress("a", "1")}`), stream(progress("b", "2"), CUT), CUT, helloWorld);

  const { connections } = await streamToCleanEnd({ fetch });

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
  test(`${status} ${code} is temporary: the message is sent again after Retry-After`, async () => {
    const { fetch, requests } = scriptedFetch(refusal(status, errorBody(code), { "Retry-After": "0.06" }), helloWorld);

    const { connections, last } = await streamToCleanEnd({ fetch });

    assert.deepEqual(connections[1], { state: "waiting", seconds: 0.06, failure: { type: "error", ...errorBody(code) } });
    assert.deepEqual([requests.length, last.type], [2, "complete"]);
  });
}

test("Retry-After may be a date", async () => {
  const { fetch } = scriptedFetch(
    refusal(429, errorBody("too_many_requests"), { "Retry-After": new Date(Date.now() + 1500).toUTCString() }),
    helloWorld,
  );

  const { connections } = await streamToCleanEnd({ fetch });

  assert.ok(connections[1].seconds >= 0 && connections[1].seconds <= 1.5, connections[1].seconds);
});

test("a Retry-After beyond giveUpAfterSeconds ends the stream at once", async () => {
  const { fetch, requests } = scriptedFetch(refusal(429, errorBody("too_many_requests"), { "Retry-After": "3600" }));

  const { last } = await streamToCleanEnd({ fetch });

  assert.deepEqual([requests.length, last.code], [1, "too_many_requests"]);
});

for (const page of [undefined, "<h1>Bad gateway</h1>"]) {
  test(`a proxy's 502 is temporary, ${page ?? "empty"}`, async () => {
    const { fetch, requests } = scriptedFetch(refusal(502, page), helloWorld);

    await streamToCleanEnd({ fetch });

    assert.equal(requests.length, 2);
  });
}

test("a reply that exists is requested again after any server error", async () => {
  const refusals = [500, 502, 503, 504, 429].map((status) => refusal(status, errorBody(`code_${status}`)));
  const { fetch, requests } = scriptedFetch(stream(progress("a", "1"), CUT), ...refusals, stream(complete("a", "2")));

  await streamToCleanEnd({ fetch });

  assert.equal(requests.length, 7);
});
