// How streamChat is left and stopped, and that it leaves nothing behind.

import assert from "node:assert/strict";
import { test } from "node:test";

import {
  CUT,
  HANG,
  assertNothingIsLeft,
  complete,
  dice,
  eventually,
  frame,
  gate,
  later,
  listen,
  listenToTheEnd,
  pendingTimers,
  problem,
  refuse,
  said,
  stream,
  whole,
  wire,
} from "./scripted.mjs";

for (const [where, answers, ready] of [
  ["before it begins", [whole], () => true],
  ["while it asks", [HANG], ({ requests }) => requests.length],
  ["while it reads", [stream(said("a", "1"), HANG)], (_, { events }) => events.length],
  ["while it waits", [CUT], (_, { connections }) => connections.some(({ state }) => state === "waiting")],
]) {
  test(`who leaves ${where} is told nothing more`, async () => {
    dice.chance = where === "while it waits" ? 1000 : 0;
    const script = wire(...answers);
    const controller = new AbortController();
    const heard = listen({ fetch: script.fetch, signal: controller.signal });
    await eventually(() => ready(script, heard));
    assert.ok(pendingTimers() <= 2, "its life's, and that of what it is doing");
    const reason = new Error("the user went away");

    const told = heard.events.length + heard.connections.length;
    controller.abort(reason);

    await assert.rejects(heard.answer.done, reason);
    await later(0.02);
    assert.equal(heard.events.length + heard.connections.length, told);
    assert.equal(script.open, 0);
    assertNothingIsLeft(controller.signal);
  });
}

test("who leaves from within a callback is told nothing more, even of the same piece", async () => {
  const controller = new AbortController();
  const { fetch } = wire(stream(said("a", "1") + said("b", "2") + complete("ab", "3")));
  const heard = listen({
    fetch,
    signal: controller.signal,
    onEvent: (event) => (heard.events.push(event), controller.abort()),
  });

  await assert.rejects(heard.answer.done, { name: "AbortError" });

  assert.equal(heard.events.length, 1);
  assertNothingIsLeft(controller.signal);
});

test("who has left already asks for nothing", async () => {
  const { fetch, requests } = wire(whole);

  const { answer, events, connections } = listen({ fetch, signal: AbortSignal.abort() });

  await assert.rejects(answer.done, { name: "AbortError" });
  assert.deepEqual([requests, events, connections], [[], [], []]);
  assertNothingIsLeft();
});

test("who leaves need not catch, whatever else they asked for", async () => {
  const controller = new AbortController();
  const script = wire(stream(said("a", "1"), HANG));
  const { events, answer } = listen({ fetch: script.fetch, signal: controller.signal });
  await eventually(() => events.length);

  answer.stop();
  controller.abort();

  await later(0.02); // An unhandled rejection would have ended the process.
  assertNothingIsLeft(controller.signal);
});

test("a signal that outlives many answers collects nothing", async () => {
  const { signal } = new AbortController();

  for (let i = 0; i < 20; i++) await listenToTheEnd({ fetch: wire(stream(said("a", "1"), CUT), whole).fetch, signal });

  assertNothingIsLeft(signal);
});

// Stopping

const stopped = frame({ type: "stopped", response: { responses: ["a"] } }, "2");

function stoppable() {
  const { opened, open } = gate();
  const script = wire(stream(said("a", "1"), opened));
  const { fetch } = script;
  script.fetch = async (url, init) => {
    const response = await fetch(url, init);
    if (url.endsWith("/stop") && response.ok) open(stopped);
    return response;
  };
  return script;
}

test("stop is asked for, and the answer's end waited for", async () => {
  const script = stoppable();
  const heard = listen({ fetch: script.fetch, headers: { Authorization: "Bearer x" } });
  await eventually(() => heard.events.length);

  const last = await heard.answer.stop();

  assert.deepEqual([last.type, last, heard.events.length], ["stopped", heard.events.at(-1), 2]);
  assert.deepEqual(
    script.stops.map(({ url, method, headers }) => [url, method, headers.authorization]),
    [["http://chat.test/api/chat/stream/m-1/stop", "POST", "Bearer x"]],
  );
  assertNothingIsLeft();
});

test("a stop before the message has a name is asked for once it has one", async () => {
  const script = stoppable();
  const { answer } = listen({ fetch: script.fetch });

  assert.equal((await answer.stop()).type, "stopped");
  assert.equal(script.stops.length, 1);
});

for (const [name, failure] of [
  ["was lost", CUT],
  ["was refused for now", refuse(503, problem("server_restarting"))],
]) {
  test(`a stop that ${name} is asked for again`, async () => {
    const script = stoppable();
    script.stopped = [failure, refuse(202, {})];
    const heard = listen({ fetch: script.fetch });
    await eventually(() => heard.events.length);

    assert.equal((await heard.answer.stop()).type, "stopped");
    assert.equal(script.stops.length, 2);
    assertNothingIsLeft();
  });
}

test("a stop that came too late changes nothing", async () => {
  const { answer, last } = await listenToTheEnd({ fetch: wire(whole).fetch });

  assert.equal(await answer.stop(), last);
  assertNothingIsLeft();
});

test("a stop that hangs ends with the answer", async () => {
  const { opened, open } = gate();
  const script = wire(stream(said("a", "1"), opened));
  script.stopped = [HANG];
  const heard = listen({ fetch: script.fetch });
  await eventually(() => heard.events.length);

  const stop = heard.answer.stop();
  await eventually(() => script.stops.length);
  open(complete("a", "2"));

  assert.equal((await stop).type, "complete");
  assertNothingIsLeft();
});
