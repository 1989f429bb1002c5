// streamChat while the calling test restarts the server: the text continues where it stopped.

import assert from "node:assert/strict";
import { test } from "node:test";

import { textOf } from "./library.mjs";
import { countBreaks, serverOptions, send, numberedWords } from "./live_library.mjs";

const TEXT = numberedWords(40);

test("a reply survives the restart of its server", async () => {
  const users = Array.from({ length: 5 }, (_, number) => `restart-${number}`);

  const all = await Promise.all(users.map((user) => send(`/slow 6 ${TEXT}`, serverOptions(user))));

  for (const received of all) {
    assert.equal(textOf(received), TEXT);
    assert.deepEqual([received.last.type, received.last.response.responses], ["complete", [TEXT]]);
    assert.ok(countBreaks(received) > 0);
  }
});
