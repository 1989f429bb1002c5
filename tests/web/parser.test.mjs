// The parser against the standard's cases, split at every byte.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import { EventParser, readEvents } from "./library.mjs";

const { cases } = JSON.parse(readFileSync(new URL("../cases/sse.json", import.meta.url), "utf8"));
const LARGE = 2000;

const plain = (events) => events.map(({ event, data, id }) => ({ event, data, id }));

function parsed(pieces) {
  const parser = new EventParser();
  return { events: plain(pieces.flatMap((piece) => parser.feed(piece))), id: parser.lastEventId, retry: parser.retry };
}

function inPieces(bytes, size) {
  return Array.from({ length: Math.ceil(bytes.length / size) }, (_, index) => bytes.subarray(index * size, (index + 1) * size));
}

for (const { name, chunks_base64, expected, final_last_event_id, final_retry } of cases) {
  test(name, () => {
    const chunks = chunks_base64.map((chunk) => Buffer.from(chunk, "base64"));
    const input = Buffer.concat(chunks);
    const correct = { events: plain(expected), id: final_last_event_id, retry: final_retry };

    assert.deepEqual(parsed(chunks), correct);
    const sizes = input.length > LARGE ? [1, 2, 3, 7, 1024] : input.keys();
    for (const size of sizes) assert.deepEqual(parsed(inPieces(input, size || 1)), correct, `pieces of ${size} bytes`);
    const positions = input.length > LARGE ? [1, LARGE] : input.keys();
    for (const position of positions) {
      assert.deepEqual(parsed([input.subarray(0, position), input.subarray(position)]), correct, `cut at ${position}`);
    }
  });
}

test("all cases are present", () => assert.equal(cases.length, 173));

test("Unicode line separators do not end a line", () => {
  const data = "a\u2028b\u2029c\u0085d\u000be\u000cf";

  assert.deepEqual(parsed([new TextEncoder().encode(`data: ${data}\n\n`)]).events, [{ event: "message", data, id: "" }]);
});

test("`numbered` tells whether an event set its id", () => {
  const events = new EventParser().feed(new TextEncoder().encode("data: a\nid: 1\n\ndata: b\n\ndata: c\nid:\n\n"));

  assert.deepEqual(
    events.map(({ id, numbered }) => [id, numbered]),
    [
      ["1", true],
      ["1", false],
      ["", false],
    ],
  );
});

test("a long line in small pieces takes linear time", () => {
  const input = Buffer.from(`data: ${"x".repeat(2 ** 24)}\n\n`);

  const { events } = parsed(inPieces(input, 128)); // In quadratic time this would exceed the file's timeout.

  assert.equal(events[0].data.length, 2 ** 24);
});

test("a body is read to its end, and cancelled when the loop is left", async () => {
  let cancelled = false;
  const body = (pull) =>
    new ReadableStream({
      start: (controller) => controller.enqueue(new TextEncoder().encode("event: a\ndata: 1\n\ndata: 2\n\n")),
      pull,
      cancel: () => (cancelled = true),
    });

  const all = [];
  for await (const { event, data } of readEvents(body((controller) => controller.close()))) all.push([event, data]);
  assert.deepEqual(all, [
    ["a", "1"],
    ["message", "2"],
  ]);
  assert.equal(cancelled, false);

  for await (const { data } of readEvents(body(() => new Promise(() => {})))) if (data) break;
  assert.equal(cancelled, true);
});

test("an error of the body is thrown", async () => {
  const body = new ReadableStream({ pull: (controller) => controller.error(new TypeError("terminated")) });

  await assert.rejects(readEvents(body).next(), /terminated/);
});
