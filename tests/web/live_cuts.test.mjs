// streamChat over a bad line: every answer is exact, however often it was cut.

import assert from "node:assert/strict";
import { test } from "node:test";

import { textOf } from "./library.mjs";
import { say, words } from "./live_library.mjs";

const CUTS = Number(process.env.CUTS);
const AT_ONCE = Number(process.env.AT_ONCE);
const TEXT = words(50);

const network = new EventTarget();
globalThis.addEventListener = network.addEventListener.bind(network);

test(`text is exact over ${CUTS} breaks`, async () => {
  let breaks = 0;
  const onConnection = ({ state }) => {
    if (state !== "waiting") return;
    breaks++;
    if (breaks % 10) network.dispatchEvent(new Event("online")); // The tenth waits in full: the test has not all day.
  };

  while (breaks < CUTS) {
    for (const heard of await Promise.all(Array.from({ length: AT_ONCE }, () => say(TEXT, { onConnection })))) {
      assert.equal(textOf(heard).trimEnd(), TEXT);
      assert.equal(heard.last.type, "complete");
    }
  }
});
