// streamChat in a page: lost networks, hidden tabs and sleeping machines.

import assert from "node:assert/strict";
import { mock, test } from "node:test";

import {
  CUT,
  HANG,
  assertCleanedUp,
  complete,
  random,
  eventually,
  sleep,
  openStream,
  streamToCleanEnd,
  errorBody,
  refusal,
  progress,
  stream,
  streamChat,
  textOf,
  helloWorld,
  scriptedFetch,
} from "./scripted_fetch.mjs";

/** Defines a page's globals while `run` runs. */
async function inPage(run) {
  const page = Object.assign(new EventTarget(), { hidden: false });
  const network = new EventTarget();
  const globals = {
    document: page,
    navigator: { onLine: true },
    addEventListener: network.addEventListener.bind(network),
  };
  const originals = Object.keys(globals).map((name) => [name, Object.getOwnPropertyDescriptor(globalThis, name)]);
  for (const [name, value] of Object.entries(globals)) Object.defineProperty(globalThis, name, { value, configurable: true });
  const visible = () => page.dispatchEvent(new Event("visibilitychange"));
  const online = () => network.dispatchEvent(new Event("online"));
  try {
    await run({ page, navigator: globals.navigator, visible, online });
  } finally {
    for (const [name, original] of originals) {
      if (original) Object.defineProperty(globalThis, name, original);
      else delete globalThis[name];
    }
  }
}

for (const event of ["online", "visible"]) {
  test(`a pause ends at once when the page is ${event} again`, () =>
    inPage(async (world) => {
      random.value = 1000;
      const { fetch, requests } = scriptedFetch(CUT, CUT, CUT, CUT, CUT, CUT, CUT, CUT, helloWorld);
      const received = openStream({ fetch });

      for (let count = 1; count <= 8; count++) {
        await eventually(() => requests.length === count && received.connections.at(-1).state === "waiting");
        world[event]();
      }

      await received.reply.done; // None of the eight pauses was waited out.
      assertCleanedUp();
    }));
}

test("a pause is not cut short in a hidden page, or if the server asked for it", () =>
  inPage(async ({ page, visible, online }) => {
    const tooMany = refusal(429, errorBody("too_many_requests"), { "Retry-After": "0.3" });
    const { fetch, requests } = scriptedFetch(tooMany, CUT, helloWorld);
    const received = openStream({ fetch });
    await eventually(() => received.connections.at(-1)?.state === "waiting");
    online();
    visible();
    random.value = 1000;
    await eventually(() => requests.length === 2 && received.connections.at(-1).state === "waiting");
    assert.ok(requests[1].at - requests[0].at >= 290);

    page.hidden = true;
    visible();
    await sleep(0.02);
    assert.equal(requests.length, 2);
    page.hidden = false;
    visible();
    await received.reply.done;
  }));

test("a page that is offline waits until it is online", () =>
  inPage(async ({ navigator, online }) => {
    navigator.onLine = false;
    const { fetch, requests } = scriptedFetch(CUT, helloWorld);
    const received = openStream({ fetch, giveUpAfterSeconds: Infinity });
    await eventually(() => received.connections.at(-1)?.state === "waiting");
    await sleep(0.1);
    assert.equal(requests.length, 1);

    navigator.onLine = true;
    online();

    assert.equal((await received.reply.done).type, "complete");
    assertCleanedUp();
  }));

test("a page that seems to be offline tries again, after longer pauses", () =>
  inPage(async ({ navigator, online }) => {
    navigator.onLine = false;
    const { fetch } = scriptedFetch(CUT, CUT, helloWorld);
    const received = openStream({ fetch, giveUpAfterSeconds: 600 });
    const pauses = () => received.connections.filter(({ state }) => state === "waiting");

    await eventually(() => pauses().length === 1);
    online();
    await eventually(() => pauses().length === 2);
    navigator.onLine = true;
    online();
    await received.reply.done;

    assert.deepEqual(
      pauses().map(({ seconds }) => seconds),
      [10, 10],
    );
  }));

test("a page that stays offline gets connection_lost after giveUpAfterSeconds", () =>
  inPage(async ({ navigator }) => {
    navigator.onLine = false;

    const { last } = await streamToCleanEnd({ fetch: scriptedFetch(CUT).fetch, giveUpAfterSeconds: 0.05 });

    assert.equal(last.code, "connection_lost");
  }));

test("a connection that died while the machine slept is replaced when the page is visible again", () =>
  inPage(async ({ visible }) => {
    const { fetch, requests } = scriptedFetch(stream(progress("a", "1"), HANG), stream(complete("a", "2")));
    const received = openStream({ fetch });
    await eventually(() => received.events.length);
    visible();
    await sleep(0.02);
    assert.equal(requests.length, 1, "the connection is not known to be dead");

    const clock = mock.method(Date, "now", () => performance.timeOrigin + performance.now() + 60_000);
    visible();
    await received.reply.done;
    clock.mock.restore();

    assert.equal(requests.length, 2);
  }));

test("an exception in a callback is reported, and the stream continues", async () => {
  const reported = [];
  const listeners = process.listeners("unhandledRejection"); // The test runner's listener fails the test.
  process.removeAllListeners("unhandledRejection").on("unhandledRejection", (error) => reported.push(error.message));
  const events = [];
  const onEvent = (event) => {
    events.push(event);
    throw new Error(`mistake ${events.length}`);
  };

  const last = await streamChat({ url: "http://chat.test/", fetch: scriptedFetch(helloWorld).fetch, onEvent }).done;
  await eventually(() => reported.length === 3);

  process.removeAllListeners("unhandledRejection");
  listeners.forEach((listener) => process.on("unhandledRejection", listener));
  assert.deepEqual([last.type, events.length, reported[0]], ["complete", 3, "mistake 1"]);
});

test("a long reply is delivered completely", async () => {
  const ids = Array.from({ length: 20_000 }, (_, number) => number);
  const frames = ids.map((number) => progress(`${number} `, `${number}-0`)).join("");
  const { fetch } = scriptedFetch(stream(frames.slice(0, 400_001), CUT), stream(frames, complete("all", "end")));

  assert.equal(textOf(await streamToCleanEnd({ fetch })), ids.map((number) => `${number} `).join(""));
});
