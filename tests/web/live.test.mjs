// streamChat and a server of ours.

import assert from "node:assert/strict";
import { test } from "node:test";

import { eventually, listen, hearOut, textOf } from "./library.mjs";
import { here, say, words } from "./live_library.mjs";

test("an answer streams, word by word", async () => {
  const heard = await say("Hello, streaming world");

  assert.equal(textOf(heard), "Hello, streaming world");
  assert.deepEqual(heard.last.response.responses, ["Hello, streaming world"]);
  assert.deepEqual(
    heard.events.map(({ type }) => type),
    ["status", "status", "progress", "progress", "progress", "complete"],
  );
});

test("what breaks careless readers is read", async () => {
  const heard = await say("/unicode");

  assert.match(textOf(heard), /line\u2028separator\u2029, next\u0085line/);
  assert.equal(heard.last.response.responses[0], textOf(heard));
});

test("an answer of a mebibyte is read", async () => {
  assert.equal(textOf(await say("/big 1024")).length, 2 ** 20);
});

test("an answer is stopped", async () => {
  const heard = listen({ ...here(), message: `/slow 60 ${words(60)}` });
  await eventually(() => textOf(heard));

  const last = await heard.answer.stop();

  assert.equal(last.type, "stopped");
  assert.deepEqual(last.response.responses, [textOf(heard)]);
});

test("an answer goes on while its reader is away, and is read again from anywhere", async () => {
  const options = here();
  const controller = new AbortController();
  const left = listen({ ...options, message: "/slow 1 one two three four five", signal: controller.signal });
  await eventually(() => textOf(left));
  controller.abort();
  await assert.rejects(left.answer.done, { name: "AbortError" });
  const { messageId } = left.answer;

  const rest = await hearOut({ ...options, ...left.answer });
  const again = await hearOut({ ...options, messageId });
  const end = await hearOut({ ...options, messageId, lastEventId: again.answer.lastEventId });

  assert.equal(textOf(left) + textOf(rest), "one two three four five");
  assert.equal(textOf(again), "one two three four five");
  assert.deepEqual([end.events, end.last], [[again.last], again.last]);
});

test("the same message said twice is answered once", async () => {
  const options = { ...here(), message: "hello", clientMessageId: "once" };

  const [first, second] = await Promise.all([hearOut(options), hearOut(options)]);

  assert.equal(first.answer.messageId, second.answer.messageId);
});

test("an error of the engine is the answer's last event", async () => {
  const { last } = await say("/error");

  assert.equal(last.code, "upstream_error");
});

for (const [name, options, code] of [
  ["nothing to say", { message: " " }, "invalid_request"],
  ["an answer nobody knows", { messageId: "unknown" }, "not_found"],
  ["another message under the same name", { message: "other", clientMessageId: "taken" }, "idempotency_conflict"],
]) {
  test(`${name} is refused in the server's words`, async () => {
    const same = here("refused");
    await hearOut({ ...same, message: "hello", clientMessageId: "taken" });

    const { last, connections } = await hearOut({ ...same, ...options });

    assert.equal(last.code, code);
    assert.match(last.error, /\.$/);
    assert.equal(connections.length, 1);
  });
}
