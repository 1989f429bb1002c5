// streamChat in a page: networks that come and go, tabs that are hidden, machines that sleep.

import assert from "node:assert/strict";
import { mock, test } from "node:test";

import {
  CUT,
  HANG,
  assertNothingIsLeft,
  complete,
  dice,
  eventually,
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

/** A page's or worker's globals, for as long as `run` lasts. */
async function inPage(run) {
  const page = Object.assign(new EventTarget(), { hidden: false });
  const network = new EventTarget();
  const globals = {
    document: page,
    navigator: { onLine: true },
    addEventListener: network.addEventListener.bind(network),
  };
  const before = Object.keys(globals).map((name) => [name, Object.getOwnPropertyDescriptor(globalThis, name)]);
  for (const [name, value] of Object.entries(globals)) Object.defineProperty(globalThis, name, { value, configurable: true });
  const seen = () => page.dispatchEvent(new Event("visibilitychange"));
  const online = () => network.dispatchEvent(new Event("online"));
  try {
    await run({ page, navigator: globals.navigator, seen, online });
  } finally {
    for (const [name, old] of before) old ? Object.defineProperty(globalThis, name, old) : delete globalThis[name];
  }
}

for (const what of ["online", "seen"]) {
  test(`a pause ends at once when the page is ${what} again`, () =>
    inPage(async (world) => {
      dice.chance = 1000;
      const { fetch, requests } = wire(CUT, CUT, CUT, CUT, CUT, CUT, CUT, CUT, whole);
      const heard = listen({ fetch });

      for (let count = 1; count <= 8; count++) {
        await eventually(() => requests.length === count && heard.connections.at(-1).state === "waiting");
        world[what]();
      }

      await heard.answer.done; // Eight pauses of as long as we are patient.
      assertNothingIsLeft();
    }));
}

test("a page that is hidden is no reason to hurry, nor is one the server told to wait", () =>
  inPage(async ({ page, seen, online }) => {
    const { fetch, requests } = wire(refuse(429, problem("too_many_requests"), { "Retry-After": "0.3" }), CUT, whole);
    const heard = listen({ fetch });
    await eventually(() => heard.connections.at(-1)?.state === "waiting");
    online();
    seen();
    dice.chance = 1000;
    await eventually(() => requests.length === 2 && heard.connections.at(-1).state === "waiting");
    assert.ok(requests[1].at - requests[0].at >= 290);

    page.hidden = true;
    seen();
    await later(0.02);
    assert.equal(requests.length, 2);
    page.hidden = false;
    seen();
    await heard.answer.done;
  }));

test("a page that is offline waits until it is online", () =>
  inPage(async ({ navigator, online }) => {
    navigator.onLine = false;
    const { fetch, requests } = wire(CUT, whole);
    const heard = listen({ fetch, giveUpAfterSeconds: Infinity });
    await eventually(() => heard.connections.at(-1)?.state === "waiting");
    await later(0.1);
    assert.equal(requests.length, 1);

    navigator.onLine = true;
    online();

    assert.equal((await heard.answer.done).type, "complete");
    assertNothingIsLeft();
  }));

test("a page that stays offline is told, once we have been patient", () =>
  inPage(async ({ navigator }) => {
    navigator.onLine = false;

    assert.equal((await listenToTheEnd({ fetch: wire(CUT).fetch, giveUpAfterSeconds: 0.05 })).last.code, "connection_lost");
  }));

test("a line that died while the machine slept is noticed when the page is seen again", () =>
  inPage(async ({ seen }) => {
    const { fetch, requests } = wire(stream(said("a", "1"), HANG), stream(complete("a", "2")));
    const heard = listen({ fetch });
    await eventually(() => heard.events.length);
    seen();
    await later(0.02);
    assert.equal(requests.length, 1, "it is alive, for all we know");

    const clock = mock.method(Date, "now", () => performance.timeOrigin + performance.now() + 60_000);
    seen();
    await heard.answer.done;
    clock.mock.restore();

    assert.equal(requests.length, 2);
  }));

test("a callback that throws is reported, and the answer goes on", async () => {
  const reported = [];
  const before = process.listeners("unhandledRejection"); // The test runner's own: a failure.
  process.removeAllListeners("unhandledRejection").on("unhandledRejection", (error) => reported.push(error.message));
  const events = [];
  const onEvent = (event) => {
    events.push(event);
    throw new Error(`mistake ${events.length}`);
  };

  const last = await streamChat({ url: "http://chat.test/", fetch: wire(whole).fetch, onEvent }).done;
  await eventually(() => reported.length === 3);

  process.removeAllListeners("unhandledRejection");
  before.forEach((listener) => process.on("unhandledRejection", listener));
  assert.deepEqual([last.type, events.length, reported[0]], ["complete", 3, "mistake 1"]);
});

test("a long answer is told in full", async () => {
  const ids = Array.from({ length: 20_000 }, (_, number) => number);
  const frames = ids.map((number) => said(`${number} `, `${number}-0`)).join("");
  const { fetch } = wire(stream(frames.slice(0, 400_001), CUT), stream(frames, complete("all", "end")));

  assert.equal(textOf(await listenToTheEnd({ fetch })), ids.map((number) => `${number} `).join(""));
});
