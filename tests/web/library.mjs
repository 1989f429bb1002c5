// What the tests of sse.js share: the library as Node imports it, and an answer with all that was told of it.

import assert from "node:assert/strict";
import { copyFileSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

// A .js file outside of any package is no module for every Node 20; a copy named .mjs is.
const folder = mkdtempSync(join(tmpdir(), "sse-"));
copyFileSync(fileURLToPath(new URL("../../bff/web/static/sse.js", import.meta.url)), join(folder, "sse.mjs"));
export const { EventParser, followReply, readEvents, streamChat } = await import(pathToFileURL(join(folder, "sse.mjs")).href);
rmSync(folder, { recursive: true });

process.on("warning", (warning) => {
  if (warning.name === "TimeoutOverflowWarning") throw warning; // Such a timer would fire at once, and again.
});

const { setTimeout } = globalThis; // A test may mock its own.
export const later = (seconds) => new Promise((resolve) => setTimeout(resolve, seconds * 1000));

/** Waits until `condition` is true; the machine may be slow, so it has long. */
export async function eventually(condition, seconds = 20) {
  for (const until = Date.now() + seconds * 1000; !condition(); await later(0.005)) {
    assert.ok(Date.now() < until, `never true: ${condition}`);
  }
}

/** An answer that is being listened to, with all that was told of it. */
export function listen(options) {
  const heard = { events: [], connections: [] };
  heard.answer = streamChat({
    url: "http://chat.test/api/chat/stream",
    message: "hello",
    onEvent: (event) => heard.events.push(event),
    onConnection: (connection) => heard.connections.push(connection),
    ...options,
  });
  return heard;
}

/** All that was told of an answer until its last event, which comes once, last. */
export async function hearOut(options) {
  const heard = listen(options);
  heard.last = await heard.answer.done;
  const lasts = heard.events.filter(({ type }) => ["complete", "stopped", "error"].includes(type));
  assert.deepEqual(lasts, [heard.last]);
  assert.equal(heard.events.at(-1), heard.last);
  return heard;
}

export const textOf = ({ events }) => events.map((event) => (event.type === "progress" ? event.text : "")).join("");
