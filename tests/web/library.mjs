// Shared by the tests of sse.js: the library as a Node module, and streams whose callbacks are recorded.

import assert from "node:assert/strict";
import { copyFileSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

// Some releases of Node 20 do not load a .js file outside a package as a module, so it is copied as .mjs.
const folder = mkdtempSync(join(tmpdir(), "sse-"));
copyFileSync(fileURLToPath(new URL("../../bff/web/static/sse.js", import.meta.url)), join(folder, "sse.mjs"));
export const { EventParser, followReply, readEvents, streamChat } = await import(pathToFileURL(join(folder, "sse.mjs")).href);
rmSync(folder, { recursive: true });

process.on("warning", (warning) => {
  if (warning.name === "TimeoutOverflowWarning") throw warning; // Such a timer fires immediately.
});

const { setTimeout } = globalThis; // A test may mock its own.
export const sleep = (seconds) => new Promise((resolve) => setTimeout(resolve, seconds * 1000));

/** Waits until `condition` is true; the timeout allows for slow machines. */
export async function eventually(condition, seconds = 20) {
  for (const deadline = Date.now() + seconds * 1000; !condition(); await sleep(0.005)) {
    assert.ok(Date.now() < deadline, `never true: ${condition}`);
  }
}

/** Opens a stream and records its callbacks. */
export function openStream(options) {
  const received = { events: [], connections: [] };
  received.reply = streamChat({
    url: "http://chat.test/api/chat/stream",
    message: "hello",
    onEvent: (event) => received.events.push(event),
    onConnection: (connection) => received.connections.push(connection),
    ...options,
  });
  return received;
}

/** Reads a stream to its last event, and checks that there is exactly one, at the end. */
export async function streamToEnd(options) {
  const received = openStream(options);
  received.last = await received.reply.done;
  const terminal = received.events.filter(({ type }) => ["complete", "stopped", "error"].includes(type));
  assert.deepEqual(terminal, [received.last]);
  assert.equal(received.events.at(-1), received.last);
  return received;
}

export const textOf = ({ events }) => events.map((event) => (event.type === "progress" ? event.text : "")).join("");
