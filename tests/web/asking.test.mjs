// What streamChat asks for and tells, against a scripted `fetch`.

import assert from "node:assert/strict";
import { test } from "node:test";

import {
  CUT,
  complete,
  dice,
  later,
  listen,
  listenToTheEnd,
  problem,
  refuse,
  said,
  stream,
  streamChat,
  textOf,
  whole,
  wire,
} from "./scripted.mjs";

test("a message is posted with a name of its own, and its answer told", async () => {
  const { fetch, requests } = wire(whole);

  const { answer, events, connections, last } = await listenToTheEnd({ fetch });

  assert.deepEqual(
    events.map(({ type }) => type),
    ["progress", "progress", "complete"],
  );
  assert.deepEqual(last.response.responses, ["Hello, world"]);
  assert.deepEqual(connections, [{ state: "connecting" }, { state: "open" }]);
  assert.equal(answer.messageId, "m-1");
  const [{ url, method, headers, body }] = requests;
  assert.deepEqual([requests.length, url, method], [1, "http://chat.test/api/chat/stream", "POST"]);
  assert.deepEqual(headers, { "content-type": "application/json", "x-chat-resume": "1" });
  assert.deepEqual(body, { message: "hello", client_message_id: answer.clientMessageId });
  assert.match(answer.clientMessageId, /^\d+(-\d+){3}$/);
});

test("every message has another name", () => {
  const names = new Set(Array.from({ length: 100 }, () => listen({ fetch: wire(whole).fetch }).answer.clientMessageId));

  assert.equal(names.size, 100);
});

test("what else a request may say is said", async () => {
  const { fetch, requests } = wire(whole);

  await listenToTheEnd({ fetch, message: "", body: { message_type: "audio", audio_base64: "UklG" }, clientMessageId: "mine" });

  assert.deepEqual(requests[0].body, { message: "", message_type: "audio", audio_base64: "UklG", client_message_id: "mine" });
});

test("headers may be new ones for each request, and a query stays", async () => {
  const { fetch, requests } = wire(stream(said("a", "1"), CUT), whole);
  let token = 0;

  await listenToTheEnd({
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

test("a message id cannot name another address", async () => {
  const { fetch, requests } = wire(whole);

  await listenToTheEnd({ fetch, messageId: "../../secret?$&" });

  assert.equal(requests[0].url, "http://chat.test/api/chat/stream/..%2F..%2Fsecret%3F%24%26");
});

test("a url that is none is the developer's mistake, told at once", () => {
  assert.throws(() => streamChat({ url: "/relative/in/node" }), TypeError);
});

test("nobody is called back before they hold the answer", async () => {
  const { fetch } = wire(whole);

  const answer = streamChat({
    url: "http://chat.test/",
    fetch,
    onEvent: () => answer.messageId,
    onConnection: () => answer.done,
  });

  assert.equal((await answer.done).type, "complete");
});

// What is final

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
  test(`${status} ${code} ends a message that is sent, in the server's words`, async () => {
    const { fetch, requests } = wire(refuse(status, problem(code)));

    const { last, events } = await listenToTheEnd({ fetch });

    assert.deepEqual(last, { type: "error", ...problem(code) });
    assert.deepEqual([requests.length, events.length], [1, 1]);
  });
}

for (const [status, code] of [
  [401, "unauthorized"],
  [404, "not_found"],
  [410, "expired"],
]) {
  test(`${status} ${code} ends an answer that is gone on with`, async () => {
    const { fetch, requests } = wire(stream(said("a", "1"), CUT), refuse(status, problem(code)));

    const heard = await listenToTheEnd({ fetch });

    assert.deepEqual([requests.length, heard.last.code, textOf(heard)], [2, code, "a"]);
  });
}

for (const [name, answer] of [
  ["a page", refuse(200, "<h1>Sign in to this Wi-Fi</h1>")],
  ["JSON of another kind", refuse(200, { status: "ok" })],
  ["a 404 of somebody else's", refuse(404, "<h1>No such app</h1>")],
  ["nothing", new Response(null, { status: 204 })],
]) {
  test(`${name} instead of a stream makes no sense`, async () => {
    const { fetch, requests } = wire(answer);

    const { last } = await listenToTheEnd({ fetch });

    assert.deepEqual([requests.length, last.code], [1, "unexpected_response"]);
  });
}

test("who goes on after the end they have seen is told the end, and only that", async () => {
  const { fetch, requests } = wire(
    new Response(null, { status: 204 }),
    stream(said("a", "1"), CUT),
    stream(said("b", "2"), complete("ab", "3")),
  );

  const { events } = await listenToTheEnd({ fetch, messageId: "m-1", lastEventId: "3" });

  assert.deepEqual(
    events.map(({ type }) => type),
    ["complete"],
  );
  assert.deepEqual(
    requests.map(({ headers }) => headers["last-event-id"]),
    ["3", undefined, "1"],
  );
});

test("a line that stays broken ends the answer, and the answer can be gone on with by hand", async () => {
  const options = { fetch: wire(stream(said("a", "1"), CUT), CUT).fetch, giveUpAfterSeconds: 0.05 };
  dice.chance = 0.001;
  const lost = await listenToTheEnd(options);
  assert.equal(lost.last.code, "connection_lost");

  const { fetch, requests } = wire(stream(said("b", "2"), complete("ab", "3")));
  const again = await listenToTheEnd({ ...options, ...lost.answer, fetch });

  assert.equal(textOf(lost) + textOf(again), "ab");
  assert.deepEqual([requests[0].method, requests[0].headers["last-event-id"]], ["GET", "1"]);
});

test("a message that never arrived can be sent again by hand, under the same name", async () => {
  const options = { fetch: wire(CUT).fetch, giveUpAfterSeconds: 0.02 };
  const lost = await listenToTheEnd(options);

  const { fetch, requests } = wire(whole);
  await listenToTheEnd({ ...options, ...lost.answer, fetch });

  assert.deepEqual([requests[0].method, requests[0].body.client_message_id], ["POST", lost.answer.clientMessageId]);
});

test("a server that refuses for as long as we are patient has the last word", async () => {
  const { fetch } = wire(refuse(503, problem("server_full"), { "Retry-After": "0.01" }));

  assert.equal((await listenToTheEnd({ fetch, giveUpAfterSeconds: 0.05 })).last.code, "server_full");
});

test("patience begins anew with every event", async () => {
  const cut = () => later(0.05).then(() => CUT);
  const streams = Array.from({ length: 8 }, (_, number) => stream(said(`${number}`, `${number}-0`), cut));
  const { fetch } = wire(...streams, whole);

  assert.equal((await listenToTheEnd({ fetch, giveUpAfterSeconds: 0.1 })).last.type, "complete");
});

test("a server that opens streams and says nothing is no sign of life", async () => {
  const { fetch } = wire(stream("retry: 10\n\n"));

  assert.equal((await listenToTheEnd({ fetch, giveUpAfterSeconds: 0.1 })).last.code, "connection_lost");
});
