// streamChat while the server is restarted by whoever started this: the text goes on where it stopped.

import assert from "node:assert/strict";
import { test } from "node:test";

import { textOf } from "./library.mjs";
import { breaks, here, say, words } from "./live_library.mjs";

const TEXT = words(40);

test("an answer outlives the process that tells it", async () => {
  const users = Array.from({ length: 5 }, (_, number) => `restart-${number}`);

  const all = await Promise.all(users.map((user) => say(`/slow 6 ${TEXT}`, here(user))));

  for (const heard of all) {
    assert.equal(textOf(heard), TEXT);
    assert.deepEqual([heard.last.type, heard.last.response.responses], ["complete", [TEXT]]);
    assert.ok(breaks(heard) > 0);
  }
});
