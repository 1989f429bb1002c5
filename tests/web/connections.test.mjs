// streamChat and followReply in a browser: messages that only wait hold no connection, nor does a hidden page.

import assert from "node:assert/strict";
import { test } from "node:test";

import { eventually, followReply, refusal, sleep, streamChat } from "./scripted_fetch.mjs";

const ORIGIN = "http://chat.test";
const ids = ["m-1", "m-2", "m-3", "m-4", "m-5", "m-6"];

/** A server's queue: it counts open streams, and answers `/active` and stops. */
class Server {
  queue = [];
  streams = new Map();
  mostStreams = 0;
  requests = [];
  activeResponses = [];
  onDisconnect = "continue";

  fetch = async (url, { method, headers, body, signal }) => {
    const path = url.slice(ORIGIN.length);
    this.requests.push({ method, path, lastEventId: headers.get("Last-Event-ID") });
    if (path === "/api/chat/active") return this.activeResponses.shift() ?? Response.json({ messages: this.#active() });
    if (path.endsWith("/stop")) return this.#stop(path.split("/").at(-2));
    const id = method === "POST" ? JSON.parse(body).message : path.split("/").at(-1);
    if (method === "POST") this.queue.push(id);
    return this.#open(id, signal);
  };

  #active() {
    return this.queue.map((message_id, position) => ({ message_id, state: position ? "queued" : "running", position }));
  }

  #open(id, signal) {
    const body = new ReadableStream({
      start: (controller) => {
        this.streams.set(id, controller);
        this.mostStreams = Math.max(this.mostStreams, this.streams.size);
        const close = () => (this.streams.delete(id), controller.error(signal.reason));
        signal.addEventListener("abort", close);
        const position = this.queue.indexOf(id);
        if (position < 0) this.#send(id, { type: "stopped", response: { responses: [] } }, true);
        else this.#send(id, { type: "status", message: position ? "Message queued..." : "Processing...", position });
      },
    });
    const headers = { "Content-Type": "text/event-stream", "X-Message-ID": id, "X-On-Disconnect": this.onDisconnect };
    return new Response(body, { headers });
  }

  #send(id, event, last) {
    const controller = this.streams.get(id);
    controller.enqueue(new TextEncoder().encode(`data: ${JSON.stringify(event)}\nid: ${id}-${event.type}\n\n`));
    if (!last) return;
    this.streams.delete(id);
    controller.close();
  }

  #stop(id) {
    this.queue = this.queue.filter((other) => other !== id);
    if (this.streams.has(id)) this.#send(id, { type: "stopped", response: { responses: [] } }, true);
    return new Response("{}", { status: 202 });
  }

  progress(id) {
    this.#send(id, { type: "progress", text: "a" });
  }

  complete(id) {
    this.queue.shift();
    this.#send(id, { type: "complete", response: { responses: [id] } }, true);
  }

  polls() {
    return this.requests.filter(({ path }) => path === "/api/chat/active").length;
  }
}

/** Defines a browser's globals while `run` runs. */
async function inBrowser(run) {
  const document = Object.assign(new EventTarget(), { hidden: false });
  const show = (visible) => ((document.hidden = !visible), document.dispatchEvent(new Event("visibilitychange")));
  Object.assign(globalThis, { document, location: new URL(ORIGIN) });
  try {
    await run(show);
  } finally {
    delete globalThis.document;
    delete globalThis.location;
  }
}

function send(server, id, path = "/api/chat/stream") {
  const received = { events: [], states: [] };
  received.reply = streamChat({
    url: `${ORIGIN}${path}`,
    message: id,
    fetch: server.fetch,
    onEvent: (event) => received.events.push(event),
    onConnection: ({ state }) => received.states.push(state),
  });
  received.positions = () => received.events.filter(({ type }) => type === "status").map(({ position }) => position);
  return received;
}

/** Sends six messages one after the other; the first one runs. */
async function sendSix(server) {
  const sent = [];
  for (const id of ids) {
    sent.push(send(server, id));
    await eventually(() => sent.at(-1).states.includes(id === "m-1" ? "open" : "paused"));
  }
  return sent;
}

test("of six messages one holds a stream; the others learn their positions and are answered in order", () =>
  inBrowser(async () => {
    const server = new Server();
    const sent = await sendSix(server);
    await eventually(() => sent.every(({ events }) => events.length));
    assert.deepEqual([...server.streams.keys()], ["m-1"]);
    assert.deepEqual(sent.map(({ positions }) => positions().at(-1)), [0, 1, 2, 3, 4, 5]);

    for (const [index, id] of ids.entries()) {
      await eventually(() => server.streams.has(id));
      assert.deepEqual([...server.streams.keys()], [id]);
      server.complete(id);
      assert.deepEqual((await sent[index].reply.done).response.responses, [id]);
    }

    assert.ok(server.mostStreams <= 2, "a message that is sent opens a stream for a moment");
    assert.deepEqual(sent[5].positions().slice(0, 5), [5, 4, 3, 2, 1]);
  }));

test("one request serves all waiting messages", () =>
  inBrowser(async () => {
    const server = new Server();
    const sent = await sendSix(server);
    await eventually(() => sent.every(({ events }) => events.length));
    const before = server.polls();

    await sleep(0.35);

    assert.ok(server.polls() - before <= 3, `${server.polls() - before} requests`);
    sent.forEach(({ reply }) => reply.stop());
    await Promise.all(sent.map(({ reply }) => reply.done));
  }));

test("a message that waits for another tab's reply holds no stream", () =>
  inBrowser(async () => {
    const server = new Server();
    server.queue.push("of-another-tab");
    const sent = send(server, "m-1");
    await eventually(() => sent.states.includes("paused"));
    assert.equal(server.streams.size, 0);
    assert.deepEqual(sent.positions(), [1]);

    server.queue.shift();
    await eventually(() => server.streams.has("m-1"));
    server.complete("m-1");

    assert.equal((await sent.reply.done).type, "complete");
  }));

test("a waiting message is stopped at once", () =>
  inBrowser(async () => {
    const server = new Server();
    const sent = await sendSix(server);

    const last = await sent[3].reply.stop();

    assert.equal(last.type, "stopped");
    assert.deepEqual(server.queue, ["m-1", "m-2", "m-3", "m-5", "m-6"]);
    for (const index of [0, 1, 2, 4, 5]) await sent[index].reply.stop();
  }));

test("a reply whose reader leaves makes room for the next one", () =>
  inBrowser(async () => {
    const server = new Server();
    const controller = new AbortController();
    const first = streamChat({ url: `${ORIGIN}/api/chat/stream`, message: "m-1", fetch: server.fetch, signal: controller.signal });
    await eventually(() => server.streams.has("m-1"));
    const second = send(server, "m-2");
    await eventually(() => second.states.includes("paused"));

    controller.abort(new Error("left"));
    await assert.rejects(first.done, /left/);
    server.queue.shift();
    await eventually(() => server.streams.has("m-2"));

    server.complete("m-2");
    assert.equal((await second.reply.done).type, "complete");
  }));

test("the positions are requested again after Retry-After", () =>
  inBrowser(async () => {
    const server = new Server();
    server.queue.push("of-another-tab");
    const { status, body, headers } = refusal(429, { error: "Too many.", code: "too_many_requests" }, { "Retry-After": "0.4" });
    server.activeResponses.push(new Response(body, { status, headers }));
    const sent = send(server, "m-1");
    await eventually(() => server.polls() === 1);
    server.queue.shift();

    await sleep(0.3);
    assert.equal(server.polls(), 1);
    await eventually(() => server.streams.has("m-1"));

    server.complete("m-1");
    await sent.reply.done;
  }));

test("without positions a waiting message keeps its stream", () =>
  inBrowser(async () => {
    const server = new Server();
    server.queue.push("of-another-tab");
    server.activeResponses.push(new Response("", { status: 404 }));
    const sent = send(server, "m-1");
    await eventually(() => server.polls() === 1 && server.streams.has("m-1"));

    await sleep(0.4);
    assert.deepEqual([server.polls(), server.streams.size], [1, 1]);
    server.queue.shift();
    server.complete("m-1");

    await sent.reply.done;
  }));

test("where a disconnect would end the reply, its stream is kept", () =>
  inBrowser(async (show) => {
    const server = Object.assign(new Server(), { onDisconnect: "cancel" });
    server.queue.push("of-another-tab");
    const sent = send(server, "m-1");
    await eventually(() => sent.events.length);
    show(false);
    sent.reply.pause();

    await sleep(0.4);
    assert.deepEqual([sent.states, server.streams.size], [["connecting", "open"], 1]);
    server.queue.shift();
    server.complete("m-1");

    assert.equal((await sent.reply.done).type, "complete");
  }));

for (const [name, hide] of [
  ["hidden page", (show, reply, visible) => show(visible)],
  ["paused reply", (show, reply, visible) => (visible ? reply.resume() : reply.pause())],
]) {
  test(`a ${name} holds no stream, and resumes after its last event`, () =>
    inBrowser(async (show) => {
      const server = new Server();
      const sent = send(server, "m-1");
      await eventually(() => sent.events.length === 1);
      server.progress("m-1");
      await eventually(() => sent.events.length === 2);

      hide(show, sent.reply, false);
      await eventually(() => server.streams.size === 0);
      const { length } = server.requests;
      await sleep(0.2);
      assert.equal(server.requests.length, length, "no requests either");
      hide(show, sent.reply, true);
      await eventually(() => server.streams.has("m-1"));

      assert.deepEqual(server.requests.at(-1), { method: "GET", path: "/api/chat/stream/m-1", lastEventId: "m-1-progress" });
      server.complete("m-1");
      assert.equal((await sent.reply.done).type, "complete");
      assert.ok(!sent.states.includes("waiting"));
    }));
}

test("a message sent in a hidden page is accepted, and read once the page is shown", () =>
  inBrowser(async (show) => {
    const server = new Server();
    show(false);
    const sent = send(server, "m-1");
    await eventually(() => sent.states.includes("paused") && server.streams.size === 0);
    assert.deepEqual(server.queue, ["m-1"]);

    show(true);
    await eventually(() => server.streams.has("m-1"));

    server.complete("m-1");
    await sent.reply.done;
  }));

test("a conversation's reply in a hidden page resumes when it is shown", () =>
  inBrowser(async (show) => {
    const url = `${ORIGIN}/api/conversations/c-1/stream?messageId=q-1&on_disconnect=continue`;
    const head = { "Content-Type": "text/event-stream", "X-Message-ID": "m-1", "X-On-Disconnect": "continue" };
    const pending = (signal) => new ReadableStream({ start: (body) => signal.addEventListener("abort", () => body.error()) });
    const done = 'event: done\ndata: {"messageId": "r-1"}\nid: 2\n\n';
    const requests = [];
    const fetch = async (_, { signal }) => new Response(requests.push(signal) === 1 ? pending(signal) : done, { headers: head });
    const states = [];
    const reply = followReply({ url, fetch, onConnection: ({ state }) => states.push(state) });
    await eventually(() => states.includes("open"));

    show(false);
    await eventually(() => requests[0].aborted);
    await sleep(0.1);
    assert.equal(requests.length, 1);
    show(true);

    assert.equal((await reply.done).messageId, "r-1");
    assert.deepEqual(states, ["connecting", "open", "paused", "connecting", "open"]);
  }));

test("outside of browsers every message has its stream", async () => {
  const server = new Server();
  const sent = [send(server, "m-1"), send(server, "m-2")];

  await eventually(() => server.streams.size === 2);

  for (const [index, id] of ["m-1", "m-2"].entries()) {
    server.complete(id);
    assert.equal((await sent[index].reply.done).type, "complete");
  }
});

test("a stop that is refused is sent again after Retry-After", async () => {
  const stops = [];
  const stream = new Server();
  const fetch = async (url, init) => {
    if (!url.endsWith("/stop")) return stream.fetch(url, init);
    stops.push(performance.now());
    if (stops.length > 1) return stream.fetch(url, init);
    return new Response("{}", { status: 503, headers: { "Retry-After": "0.2" } });
  };
  const reply = streamChat({ url: `${ORIGIN}/api/chat/stream`, message: "m-1", fetch });
  await eventually(() => stream.streams.has("m-1") && reply.messageId);

  const last = await reply.stop();

  assert.equal(last.type, "stopped");
  assert.equal(stops.length, 2);
  assert.ok(stops[1] - stops[0] >= 190, `${stops[1] - stops[0]} ms`);
});
