// streamChat over an unreliable connection: every reply is exact, however often it is interrupted.

import assert from "node:assert/strict";
import { test } from "node:test";

import { textOf } from "./library.mjs";
import { send, numberedWords } from "./live_library.mjs";

const CUTS = Number(process.env.CUTS);
const CONCURRENCY = Number(process.env.CONCURRENCY);
const TEXT = numberedWords(50);

const network = new EventTarget();
globalThis.addEventListener = network.addEventListener.bind(network);

test(`text is exact over ${CUTS} breaks`, async () => {
  let breaks = 0;
  const onConnection = ({ state }) => {
    if (state !== "waiting") return;
    breaks++;
    if (breaks % 10) network.dispatchEvent(new Event("online")); // Only every tenth pause is waited out, to keep the test short.
  };

  while (breaks < CUTS) {
    for (const received of await Promise.all(Array.from({ length: CONCURRENCY }, () => send(TEXT, { onConnection })))) {
      assert.equal(textOf(received).trimEnd(), TEXT);
      assert.equal(received.last.type, "complete");
    }
  }
});
