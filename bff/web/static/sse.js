// @ts-check
/**
 * Streamed replies that survive their connection: one module, no dependencies, for pages, workers and Node 20.
 *
 * @typedef {{type: "error", error: string, code: string, request_id?: string}} Failure `error` is a message for the user.
 * @typedef {{type: "complete" | "stopped", response: {responses: string[], [more: string]: any}} | Failure
 *   | {type: "complete" | "stopped", messageId: string | null}} LastEvent The latter of `followReply`.
 * @typedef {{type: "status", message: string, position?: number} | {type: "progress", text: string} | {type: "restart"}
 *   | {type: "tool_use" | "tool_result", [more: string]: any} | LastEvent} ChatEvent
 * @typedef {{state: "connecting" | "open"} | {state: "waiting", seconds: number, failure: Failure}} Connection
 *
 * @typedef {object} ChatOptions
 * @property {string} [url] Where messages are posted, or a conversation's stream; absolute in Node.
 * @property {string} [message] The user's message.
 * @property {object} [body] More of the request: `message_type`, `audio_base64` …
 * @property {string} [clientMessageId] Idempotency key: the message is answered once.
 * @property {string} [messageId] Follows this answer; nothing is posted.
 * @property {string} [lastEventId] Starts after this event.
 * @property {(event: ChatEvent) => void} [onEvent] Each event once, and one `LastEvent`.
 * @property {(connection: Connection) => void} [onConnection]
 * @property {AbortSignal} [signal] Disconnects; the answer goes on. `stop()` ends it.
 * @property {HeadersInit | (() => HeadersInit | Promise<HeadersInit>)} [headers] A function is called for each request.
 * @property {RequestCredentials} [credentials]
 * @property {number} [idleTimeoutSeconds] Reconnects after so long (45) without a byte.
 * @property {number} [giveUpAfterSeconds] Without a working connection for so long (120): `connection_lost`.
 * @property {typeof globalThis.fetch} [fetch]
 */

const MIN_PAUSE = 0.5; // Seconds, as all times here.
const MAX_PAUSE = 10;
const BUSY_PAUSE = 1;
const LOST = { type: "error", error: "The connection was lost.", code: "connection_lost" };
const UNEXPECTED = { type: "error", error: "The server's answer makes no sense.", code: "unexpected_response" };

/** What differs between the two kinds of streams: addresses, and the names of events. */
const CHAT = {
  followUrl: (url, id) => url.replace(/(?=\?|$)/, id && `/${encodeURIComponent(id)}`),
  stopUrl: (url, id) => CHAT.followUrl(url, id).replace(/(?=\?|$)/, "/stop"),
  decode: ({ data }) => parsed(data),
};
const TYPES = { token: "progress", done: "complete", failure: "error", stopped: "stopped", restart: "restart" };
const CONVERSATION = {
  followUrl: (url) => url,
  stopUrl: (url) => url.replace(/\/stream(\?.*)?$/, "/stop"),
  decode({ event, data }) {
    const { token, ...content } = parsed(data) ?? {};
    return { ...content, ...(event === "token" && { text: token }), type: TYPES[event] };
  },
};

/**
 * Posts `message`, or follows the answer `messageId`, over as many connections as it takes.
 * Throws a TypeError for an invalid `url`; every other failure is an `error` event.
 * @param {ChatOptions} options
 */
export function streamChat(options) {
  return new Answer(CHAT, { url: "/api/chat/stream", clientMessageId: randomId(), ...options });
}

/**
 * Follows a reply in a conversation, and begins it unless it runs: `url` is `/api/conversations/<id>/stream?messageId=…`.
 * Waits while another reply of the conversation runs. An answered question: `complete`, with `messageId` null.
 * @param {ChatOptions} options
 */
export function followReply(options) {
  return new Answer(CONVERSATION, options);
}

/**
 * The events of a response's body, until it ends; throws what breaks it. Leaving the loop cancels the body.
 * @param {ReadableStream<Uint8Array>} body
 */
export async function* readEvents(body, parser = new EventParser(), connection = undefined) {
  const reader = body.getReader();
  const cancel = () => reader.cancel().catch(() => {}); // What broke is broken already.
  connection?.over.then(cancel); // Node 20 leaves a reader waiting whose fetch is aborted just as all was said.
  try {
    for (let read = await reader.read(); !read.done; read = await reader.read()) {
      connection?.reset();
      yield* parser.feed(read.value);
    }
  } finally {
    cancel();
  }
}

/** Bytes in any pieces in, events out: https://html.spec.whatwg.org/#event-stream-interpretation. */
export class EventParser {
  lastEventId = "";
  /** @type {number | null} Milliseconds. */
  retry = null;
  #decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  #skip = "\uFEFF"; // The first BOM; some decoders would skip any.
  #line = "";
  #block = { event: "", data: [], id: null };

  /**
   * `id` is the last one in force, `numbered` tells whether it came with this event.
   * @param {Uint8Array} bytes @returns {{event: string, data: string, id: string, numbered: boolean}[]}
   */
  feed(bytes) {
    const text = this.#decoder.decode(bytes, { stream: true });
    if (!text) return [];
    const lines = (text[0] === this.#skip ? text.slice(1) : text).split(/\r\n?|\n/);
    this.#skip = text.endsWith("\r") ? "\n" : ""; // The other half of a CRLF that was cut.
    lines[0] = this.#line + lines[0]; // Only what is new is searched, so that a long line takes linear time.
    this.#line = lines.pop();
    return lines.flatMap((line) => (line ? this.#read(line) : this.#dispatch()));
  }

  #read(line) {
    const [, name, value] = /^([^:]*)(?:: ?)?([^]*)$/.exec(line);
    if (name === "data") this.#block.data.push(value);
    else if (name === "event") this.#block.event = value;
    else if (name === "id" && !value.includes("\0")) this.#block.id = value;
    else if (name === "retry" && /^[0-9]+$/.test(value)) this.retry = Number(value);
    return [];
  }

  #dispatch() {
    const { event, data, id } = this.#block;
    this.#block = { event: "", data: [], id: null };
    this.lastEventId = id ?? this.lastEventId;
    if (!data.length) return [];
    return [{ event: event || "message", data: data.join("\n"), id: this.lastEventId, numbered: Boolean(id) }];
  }
}

/** One answer and one reader. `streamChat({ ...options, ...answer })` resumes one whose connection was lost. */
class Answer {
  #kind;
  #options;
  #lifetime;
  #connection = idleTimer(0);
  #wake = () => {};
  #delivered = new Set();
  #unnumbered = 0;
  #onlyLast = false;
  #stopping = false;
  #retry = 0;
  #failures = 0;
  #failingSince = 0;
  #last = null;

  /** @param {ChatOptions} options */
  constructor(kind, { url, messageId = "", lastEventId = "", clientMessageId, ...options }) {
    this.#kind = kind;
    this.#options = { ...options, url: new Request(url).url };
    this.#lifetime = idleTimer(Infinity, options.signal);
    this.messageId = messageId;
    this.lastEventId = lastEventId;
    this.clientMessageId = clientMessageId;
    /** The last event. Rejects with the signal's reason when that is aborted. @type {Promise<LastEvent>} */
    this.done = this.#run();
    this.done.catch(() => {}); // Callers that leave need not catch.
  }

  /** Ends the answer for every reader. Resolves with its last event: `stopped`, or another that came first. */
  stop() {
    this.#stopping = true;
    this.#wake();
    this.#sendStop();
    return this.done;
  }

  async #run() {
    const { signal } = this.#lifetime;
    await null; // No callback before the caller holds the answer.
    globalThis.addEventListener?.("online", () => this.#wake(), { signal });
    globalThis.document?.addEventListener("visibilitychange", () => document.hidden || this.#wake(), { signal });
    while (!signal.aborted) {
      const problem = await this.#connect();
      if (problem && !signal.aborted) await this.#recover(problem);
    }
    if (this.#last) return this.#last;
    throw this.#options.signal.reason;
  }

  /** One connection, from its request to its end: what went wrong, or nothing if the next may follow at once. */
  async #connect() {
    const { idleTimeoutSeconds = 45 } = this.#options;
    const connection = (this.#connection = idleTimer(idleTimeoutSeconds, this.#lifetime.signal));
    const parser = new EventParser();
    this.#wake = connection.check;
    this.#call("onConnection", { state: "connecting" });
    try {
      const response = await this.#open();
      if (response.status === 204) return this.#nothingLeft();
      const type = response.headers.get("Content-Type") ?? "";
      if (!response.ok || !type.startsWith("text/event-stream")) return await this.#refused(response);
      this.messageId ||= response.headers.get("X-Message-ID") ?? "";
      this.#call("onConnection", { state: "open" });
      if (this.#stopping) this.#sendStop();
      for await (const event of readEvents(response.body, parser, connection)) this.#deliver(event);
    } catch {
      // Refused, reset, idle or offline: fetch does not tell them apart.
    } finally {
      connection.end();
      if (parser.retry !== null) this.#retry = parser.retry / 1000;
    }
    return { failure: LOST };
  }

  /** Posts the message, under one key, until it is known to have arrived; after that, asks for what follows. */
  #open() {
    const { message, body, url } = this.#options;
    this.#unnumbered = 0;
    if (this.messageId || this.#kind === CONVERSATION) {
      const resume = this.lastEventId && { "Last-Event-ID": asBytes(this.lastEventId) };
      return this.#request("GET", this.#kind.followUrl(url, this.messageId), resume);
    }
    const content = JSON.stringify({ message, ...body, client_message_id: this.clientMessageId });
    return this.#request("POST", url, { "Content-Type": "application/json", "X-Chat-Resume": "1" }, content);
  }

  /** A stop that does not arrive breaks the connection, and is sent again with the next. */
  async #sendStop() {
    const connection = this.#connection;
    if (!this.messageId) return; // It is sent once the stream is open.
    const url = this.#kind.stopUrl(this.#options.url, this.messageId);
    const { status } = await this.#request("POST", url).catch(() => ({ status: 503 }));
    if (status === 429 || status >= 500) connection.end();
  }

  async #request(method, url, ours, body) {
    const { headers, credentials, fetch = globalThis.fetch } = this.#options;
    const { signal, over } = this.#connection;
    const all = new Headers(await Promise.race([typeof headers === "function" ? headers() : headers, over]));
    Object.entries(ours || {}).forEach(([name, value]) => all.set(name, value));
    return fetch(url, { method, headers: all, body, credentials, signal });
  }

  /** A reply is stored, then. An answer whose end was seen is read again from its start, to deliver its last event. */
  #nothingLeft() {
    if (this.#kind === CONVERSATION) return this.#finish({ type: "complete", messageId: null });
    if (!this.lastEventId) return { failure: UNEXPECTED, final: true };
    this.lastEventId = "";
    this.#onlyLast = true;
  }

  async #refused(response) {
    const problem = await refusal(response, this.messageId !== "");
    const busy = this.#kind === CONVERSATION && problem.failure.code === "busy";
    if (busy && this.#stopping) return this.#finish({ type: "stopped", messageId: null });
    return busy ? { ...problem, final: false, busy, after: problem.after || BUSY_PAUSE } : problem;
  }

  #deliver(streamEvent) {
    const event = this.#kind.decode(streamEvent);
    if (this.#lifetime.signal.aborted || typeof event?.type !== "string") return;
    const ofAnotherRun = !streamEvent.numbered && this.lastEventId !== ""; // Its log is another one, with ids of its own.
    if (event.type === "restart" && ofAnotherRun) this.#delivered.clear();
    const last = ["complete", "stopped", "error"].includes(event.type);
    const content = event.type !== "keepalive";
    if (content && this.#wasDelivered(streamEvent) && !last) return;
    this.#failures = this.#failingSince = 0;
    if (last) this.#end(event);
    else if (content && !this.#onlyLast) this.#call("onEvent", event);
  }

  /** A reply that a restarting server could not finish was not stored: it is asked for again, and begins anew. */
  #end(event) {
    if (this.#kind !== CONVERSATION || event.code !== "server_restarting") return this.#finish(event);
    this.lastEventId = "";
    this.#delivered.clear();
    this.#call("onEvent", { type: "restart" });
    this.#connection.end();
  }

  /** Events without an id are sent again after the last one that has one: their number after it identifies them. */
  #wasDelivered({ id, numbered }) {
    if (numbered) [this.lastEventId, this.#unnumbered] = [id, 0];
    const name = numbered ? id : `${this.lastEventId}\n${++this.#unnumbered}`;
    if (this.#delivered.has(name)) return true;
    this.#delivered.add(name);
    return false;
  }

  async #recover({ failure, final = false, after = 0, busy = false }) {
    const { giveUpAfterSeconds = 120 } = this.#options;
    this.#failingSince = (!busy && this.#failingSince) || Date.now(); // A busy conversation is no failure: replies take long.
    const left = giveUpAfterSeconds - (Date.now() - this.#failingSince) / 1000;
    if (final || after >= left) return this.#finish(failure);
    // Full jitter below a bound that doubles: clients that were cut together must not reconnect together.
    const jitter = Math.random() * Math.min(MAX_PAUSE, MIN_PAUSE * 2 ** this.#failures++);
    const offline = globalThis.navigator?.onLine === false;
    const seconds = offline ? left : Math.min(left, Math.max(after, this.#retry) + jitter);
    const pause = idleTimer(seconds, this.#lifetime.signal);
    this.#wake = after && !busy ? () => {} : pause.end;
    this.#call("onConnection", { state: "waiting", seconds, failure });
    await pause.over;
  }

  #finish(last) {
    this.#last = last;
    this.#call("onEvent", last);
    this.#lifetime.end();
  }

  /** A callback that throws is reported, as an unhandled rejection, and the answer goes on. */
  #call(name, argument) {
    try {
      if (!this.#lifetime.signal.aborted) this.#options[name]?.(argument);
    } catch (error) {
      Promise.reject(error);
    }
  }
}

/** Ends after so many seconds without `reset()`, with its parent, or by `end()`; no timer and no listener outlives it. */
function idleTimer(seconds, parent) {
  const controller = new AbortController();
  const { signal } = controller;
  const over = new Promise((resolve) => signal.addEventListener("abort", resolve));
  let activeAt = Date.now();
  let timer;
  const reset = () => (activeAt = Date.now());
  const end = () => {
    clearTimeout(timer);
    controller.abort();
  };
  const check = () => {
    clearTimeout(timer); // Timers stand still while a machine sleeps, the clock does not.
    const left = activeAt + seconds * 1000 - Date.now();
    if (left <= 0) end();
    else if (!signal.aborted) timer = setTimeout(check, Math.min(left, 2 ** 31 - 1));
  };
  parent?.addEventListener("abort", end, { signal });
  if (parent?.aborted) end();
  check();
  return { signal, over, reset, check, end };
}

/** Temporary: a 429, a deploy, a proxy's page, and whatever keeps us from an answer that exists. The rest is final. */
async function refusal(response, following) {
  const content = await response.json().catch(() => null);
  const ours = typeof content?.error === "string" && typeof content.code === "string";
  const asked = response.headers.get("Retry-After"); // Seconds, or a date.
  const after = Math.max(0, Number(asked) || (Date.parse(asked) - Date.now()) / 1000) || 0;
  const temporary = response.status === 429 || (response.status >= 500 && (following || after > 0 || !ours));
  return { failure: ours ? { ...content, type: "error" } : temporary ? LOST : UNEXPECTED, final: !temporary, after };
}

/** `crypto.randomUUID` is missing where the page came over plain http. */
function randomId() {
  return crypto.getRandomValues(new Uint32Array(4)).join("-");
}

/** Headers are bytes; `EventSource` sends an id as UTF-8. */
const asBytes = (text) => String.fromCharCode(...new TextEncoder().encode(text));

function parsed(data) {
  try {
    return JSON.parse(data);
  } catch {
    return null;
  }
}
