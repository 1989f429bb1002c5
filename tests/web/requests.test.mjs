// The requests and events of streamChat, against a scripted `fetch`.

import assert from "node:assert/strict";
import { test } from "node:test";

import {
  CUT,
  complete,
  random,
  sleep,
  openStream,
  streamToCleanEnd,
  errorBody,
  refusal,
  progress,
  stream,
  streamChat,
  textOf,
  helloWorld,
  scriptedFetch,
} from "./scripted_fetch.mjs";

test("a message is posted with an idempotency key, and its reply delivered", async () => {
  const { fetch, requests } = scriptedFetch(helloWorld);

  const { reply, events, connections, last } = await streamToCleanEnd({ fetch });

  assert.deepEqual(
    events.map(({ type }) => type),
    ["progress", "progress", "complete"],
  );
  assert.deepEqual(last.response.responses, ["Hello, world"]);
  assert.deepEqual(connections, [{ state: "connecting" }, { state: "open" }]);
  assert.equal(reply.messageId, "m-1");
  const [{ url, method, headers, body }] = requests;
  assert.deepEqual([requests.length, url, method], [1, "http://chat.test/api/chat/stream", "POST"]);
  assert.deepEqual(headers, { "content-type": "application/json", "x-chat-resume": "1" });
  assert.deepEqual(body, { message: "hello", client_message_id: reply.clientMessageId });
  assert.match(reply.clientMessageId, /^\d+(-\d+){3}$/);
});

test("every message has a different idempotency key", () => {
  const open = () => openStream({ fetch: scriptedFetch(helloWorld).fetch }).reply;
  const keys = new Set(Array.from({ length: 100 }, () => open().clientMessageId));

  assert.equal(keys.size, 100);
});

test("`body` adds fields to the request", async () => {
  const { fetch, requests } = scriptedFetch(helloWorld);

  await streamToCleanEnd({ fetch, message: "", body: { message_type: "audio", audio_base64: "UklG" }, clientMessageId: "mine" });

  assert.deepEqual(requests[0].body, { message: "", message_type: "audio", audio_base64: "UklG", client_message_id: "mine" });
});

test("headers may be a function called for each request, and the query is kept", async () => {
  const { fetch, requests } = scriptedFetch(stream(progress("a", "1"), CUT), helloWorld);
  let token = 0;

  await streamToCleanEnd({
    fetch,
    url: "http://chat.test/stream?ids=1",
    headers: async () => ({ Authorization: `Bearer ${++token}` }),
  });

  assert.deepEqual(
    requests.map(({ url }) => url),
    ["http://chat.test/stream?ids=1", "http://chat.test/stream/m-1?ids=1"],
  );
  assert.deepEqual(
    requests.map(({ headers }) => headers.authorization),
    ["Bearer 1", "Bearer 2"],
  );
});

test("a message id cannot change the path", async () => {
  const { fetch, requests } = scriptedFetch(helloWorld);

  await streamToCleanEnd({ fetch, messageId: "../../secret?$&" });

  assert.equal(requests[0].url, "http://chat.test/api/chat/stream/..%2F..%2Fsecret%3F%24%26");
});

test("an invalid url throws a TypeError", () => {
  assert.throws(() => streamChat({ url: "/relative/in/node" }), TypeError);
});

test("no callback runs before streamChat has returned", async () => {
  const { fetch } = scriptedFetch(helloWorld);

  const reply = streamChat({
    url: "http://chat.test/",
    fetch,
    onEvent: () => reply.messageId,
    onConnection: () => reply.done,
  });

  assert.equal((await reply.done).type, "complete");
});

// Final errors

for (const [status, code] of [
  [400, "invalid_request"],
  [401, "unauthorized"],
  [403, "forbidden"],
  [404, "not_found"],
  [409, "busy"],
  [410, "expired"],
  [413, "too_large"],
  [422, "idempotency_conflict"],
  [500, "internal_error"],
  [502, "upstream_error"],
  [504, "upstream_timeout"],
]) {
  test(`${status} ${code} ends a message with the server's error`, async () => {
    const { fetch, requests } = scriptedFetch(refusal(status, errorBody(code)));

    const { last, events } = await streamToCleanEnd({ fetch });

    assert.deepEqual(last, { type: "error", ...errorBody(code) });
    assert.deepEqual([requests.length, events.length], [1, 1]);
  });
}

for (const [status, code] of [
  [401, "unauthorized"],
  [404, "not_found"],
  [410, "expired"],
]) {
  test(`${status} ${code} ends a reply that is resumed`, async () => {
    const { fetch, requests } = scriptedFetch(stream(progress("a", "1"), CUT), refusal(status, errorBody(code)));

    const received = await streamToCleanEnd({ fetch });

    assert.deepEqual([requests.length, received.last.code, textOf(received)], [2, code, "a"]);
  });
}

for (const [name, response] of [
  ["an HTML page", refusal(200, "<h1>Sign in to this Wi-Fi</h1>")],
  ["other JSON", refusal(200, { status: "ok" })],
  ["a 404 from a proxy", refusal(404, "<h1>No such app</h1>")],
  ["an empty response", new Response(null, { status: 204 })],
]) {
  test(`${name} instead of a stream is an unexpected_response`, async () => {
    const { fetch, requests } = scriptedFetch(response);

    const { last } = await streamToCleanEnd({ fetch });

    assert.deepEqual([requests.length, last.code], [1, "unexpected_response"]);
  });
}

test("resuming after the last event delivers only the last event", async () => {
  const { fetch, requests } = scriptedFetch(
    new Response(null, { status: 204 }),
    stream(progress("a", "1"), CUT),
    stream(progress("b", "2"), complete("ab", "3")),
  );

  const { events } = await streamToCleanEnd({ fetch, messageId: "m-1", lastEventId: "3" });

  assert.deepEqual(
    events.map(({ type }) => type),
    ["complete"],
  );
  assert.deepEqual(
    requests.map(({ headers }) => headers["last-event-id"]),
    ["3", undefined, "1"],
  );
});

test("a lost connection ends the stream, which can be resumed manually", async () => {
  const options = { fetch: scriptedFetch(stream(progress("a", "1"), CUT), CUT).fetch, giveUpAfterSeconds: 0.05 };
  random.value = 0.001;
  const lost = await streamToCleanEnd(options);
  assert.equal(lost.last.code, "connection_lost");

  const { fetch, requests } = scriptedFetch(stream(progress("b", "2"), complete("ab", "3")));
  const resumed = await streamToCleanEnd({ ...options, ...lost.reply, fetch });

  assert.equal(textOf(lost) + textOf(resumed), "ab");
  assert.deepEqual([requests[0].method, requests[0].headers["last-event-id"]], ["GET", "1"]);
});

test("a message that never arrived can be sent again manually with the same key", async () => {
  const options = { fetch: scriptedFetch(CUT).fetch, giveUpAfterSeconds: 0.02 };
  const lost = await streamToCleanEnd(options);

  const { fetch, requests } = scriptedFetch(helloWorld);
  await streamToCleanEnd({ ...options, ...lost.reply, fetch });

  assert.deepEqual([requests[0].method, requests[0].body.client_message_id], ["POST", lost.reply.clientMessageId]);
});

test("a refusal that lasts longer than giveUpAfterSeconds is delivered", async () => {
  const { fetch } = scriptedFetch(refusal(503, errorBody("server_full"), { "Retry-After": "0.01" }));

  assert.equal((await streamToCleanEnd({ fetch, giveUpAfterSeconds: 0.05 })).last.code, "server_full");
});

test("every event resets giveUpAfterSeconds", async () => {
  const cut = () => sleep(0.05).then(() => CUT);
  const streams = Array.from({ length: 8 }, (_, number) => stream(progress(`${number}`, `${number}-0`), cut));
  const { fetch } = scriptedFetch(...streams, helloWorld);

  assert.equal((await streamToCleanEnd({ fetch, giveUpAfterSeconds: 0.1 })).last.type, "complete");
});

test("streams without events do not reset giveUpAfterSeconds", async () => {
  const { fetch } = scriptedFetch(stream("retry: 10\n\n"));

  assert.equal((await streamToCleanEnd({ fetch, giveUpAfterSeconds: 0.1 })).last.code, "connection_lost");
});
