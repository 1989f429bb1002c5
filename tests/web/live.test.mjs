// streamChat against a live server.

import assert from "node:assert/strict";
import { test } from "node:test";

import { eventually, openStream, streamToEnd, textOf } from "./library.mjs";
import { serverOptions, send, numberedWords } from "./live_library.mjs";

test("a reply streams word by word", async () => {
  const received = await send("Hello, streaming world");

  assert.equal(textOf(received), "Hello, streaming world");
  assert.deepEqual(received.last.response.responses, ["Hello, streaming world"]);
  assert.deepEqual(
    received.events.map(({ type }) => type),
    ["status", "status", "progress", "progress", "progress", "complete"],
  );
});

test("Unicode line separators are read correctly", async () => {
  const received = await send("/unicode");

  assert.match(textOf(received), /line\u2028separator\u2029, next\u0085line/);
  assert.equal(received.last.response.responses[0], textOf(received));
});

test("a reply of a mebibyte is read", async () => {
  assert.equal(textOf(await send("/big 1024")).length, 2 ** 20);
});

test("stop ends a reply with the text so far", async () => {
  const received = openStream({ ...serverOptions(), message: `/slow 60 ${numberedWords(60)}` });
  await eventually(() => textOf(received));

  const last = await received.reply.stop();

  assert.equal(last.type, "stopped");
  assert.deepEqual(last.response.responses, [textOf(received)]);
});

test("a reply continues without its reader and can be read again from any event", async () => {
  const options = serverOptions();
  const controller = new AbortController();
  const interrupted = openStream({ ...options, message: "/slow 1 one two three four five", signal: controller.signal });
  await eventually(() => textOf(interrupted));
  controller.abort();
  await assert.rejects(interrupted.reply.done, { name: "AbortError" });
  const { messageId } = interrupted.reply;

  const rest = await streamToEnd({ ...options, ...interrupted.reply });
  const repeated = await streamToEnd({ ...options, messageId });
  const end = await streamToEnd({ ...options, messageId, lastEventId: repeated.reply.lastEventId });

  assert.equal(textOf(interrupted) + textOf(rest), "one two three four five");
  assert.equal(textOf(repeated), "one two three four five");
  assert.deepEqual([end.events, end.last], [[repeated.last], repeated.last]);
});

test("the same message sent twice gets one reply", async () => {
  const options = { ...serverOptions(), message: "hello", clientMessageId: "once" };

  const [first, second] = await Promise.all([streamToEnd(options), streamToEnd(options)]);

  assert.equal(first.reply.messageId, second.reply.messageId);
});

test("an error of the engine is the last event", async () => {
  const { last } = await send("/error");

  assert.equal(last.code, "upstream_error");
});

for (const [name, options, code] of [
  ["an empty message", { message: " " }, "invalid_request"],
  ["an unknown message id", { messageId: "unknown" }, "not_found"],
  ["another message under the same key", { message: "other", clientMessageId: "taken" }, "idempotency_conflict"],
]) {
  test(`${name} is refused with the server's numberedWords`, async () => {
    const same = serverOptions("refused");
    await streamToEnd({ ...same, message: "hello", clientMessageId: "taken" });

    const { last, connections } = await streamToEnd({ ...same, ...options });

    assert.equal(last.code, code);
    assert.match(last.error, /\.$/);
    assert.equal(connections.length, 1);
  });
}
