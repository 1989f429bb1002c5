// @ts-check
/**
 * Streams replies and reconnects when a connection is lost. One module without dependencies for pages, workers and Node 20.
 *
 * @typedef {{type: "error", error: string, code: string, request_id?: string, retry_after?: number}} Failure `error` is a
 *   message for the user; `retry_after`: seconds.
 * @typedef {{type: "complete" | "stopped", response: {responses: string[], [more: string]: any}} | Failure
 *   | {type: "complete" | "stopped", messageId: string | null}} LastEvent With `messageId`: from `followReply`.
 * @typedef {{type: "status", message: string, position?: number} | {type: "progress", text: string} | {type: "restart"}
 *   | {type: "tool_use" | "tool_result", [more: string]: any} | LastEvent} ChatEvent
 * @typedef {{state: "connecting" | "open" | "paused"} | {state: "waiting", seconds: number, failure: Failure}} Connection
 *
 * @typedef {object} ChatOptions
 * @property {string} [url] The endpoint that messages are posted to, or a conversation's stream. Absolute in Node.
 * @property {string} [message] The user's message.
 * @property {object} [body] Other fields of the request: `message_type`, `audio_base64` …
 * @property {string} [clientMessageId] Idempotency key of the message.
 * @property {string} [messageId] Follows this reply instead of posting a message.
 * @property {string} [lastEventId] Starts after this event.
 * @property {(event: ChatEvent) => void} [onEvent] Called once per event, and last with a `LastEvent`.
 * @property {(connection: Connection) => void} [onConnection]
 * @property {AbortSignal} [signal] Disconnects; the reply continues on the server. `stop()` ends it.
 * @property {HeadersInit | (() => HeadersInit | Promise<HeadersInit>)} [headers] A function is called for each request.
 * @property {RequestCredentials} [credentials]
 * @property {number} [idleTimeoutSeconds] Reconnects after this long without a byte. Default: 45.
 * @property {number} [giveUpAfterSeconds] `connection_lost` after this long without a connection. Default: 120.
 * @property {typeof globalThis.fetch} [fetch]
 */

const MIN_PAUSE = 0.5; // Seconds, like all durations in this module.
const MAX_PAUSE = 10;
const BUSY_PAUSE = 1;
const QUEUED_GRACE = 0.3; // Most messages run at once and are queued only for a moment.
const MIN_POLL = 0.1;
const MAX_POLL = 2;
const LOWEST_ID = "0-1"; // Of a restart after Redis has lost events.
const LOST = { type: "error", error: "The connection was lost.", code: "connection_lost" };
const UNEXPECTED = { type: "error", error: "The server's answer makes no sense.", code: "unexpected_response" };

/** The two protocols: they differ in URLs and in the names of events. */
const CHAT = {
  followUrl: (url, id) => url.replace(/(?=\?|$)/, id && `/${encodeURIComponent(id)}`),
  stopUrl: (url, id) => CHAT.followUrl(url, id).replace(/(?=\?|$)/, "/stop"),
  decode: ({ data }) => parseJSON(data),
};
const TYPES = { token: "progress", done: "complete", failure: "error", stopped: "stopped", restart: "restart" };
const CONVERSATION = {
  followUrl: (url) => url,
  stopUrl: (url) => url.replace(/\/stream(\?.*)?$/, "/stop"),
  decode({ event, data }) {
    const { token, ...content } = parseJSON(data) ?? {};
    return { ...content, ...(event === "token" && { text: token }), type: TYPES[event] };
  },
};

/**
 * A page's messages in one queue. One of their replies holds a stream; the others learn their positions from one request for
 * all: over HTTP/1.1 a browser opens six connections to a server, for all its tabs together.
 */
class Queue {
  static #queues = new Map();
  #url;
  #holder = null;
  #waiting = new Map();
  #isPolling = false;
  #isWoken = false;
  #endPause = () => {};

  /** The queue of a page's messages to `url`; null outside of browsers. */
  static at(url) {
    const activeUrl = url.replace(/\/stream(\?.*)?$/, "/active");
    if (!("location" in globalThis) || activeUrl === url) return null;
    if (!this.#queues.has(activeUrl)) this.#queues.set(activeUrl, new Queue(activeUrl));
    return this.#queues.get(activeUrl);
  }

  constructor(url) {
    this.#url = url;
  }

  isHeldBy(reply) {
    return this.#holder === reply;
  }

  /** Whether `reply` may hold the stream from now on. */
  acquire(reply) {
    return (this.#holder ??= reply) === reply;
  }

  release(reply) {
    if (!this.#holder || this.#holder !== reply) return;
    this.#holder = null;
    this.#wake();
  }

  /**
   * Acquires the stream for `reply` once that is free and the message is no longer queued, and calls `then`. `fetch(url)`
   * resolves with the active messages, undefined if they are unknown, and the seconds of a `Retry-After`. Returns a function
   * that ends the waiting.
   */
  wait(reply, { fetch, show, then }) {
    this.#waiting.set(reply, { fetch, show, then });
    this.#wake();
    if (!this.#isPolling) this.#poll();
    return () => this.#waiting.delete(reply) && this.#wake();
  }

  #wake() {
    this.#isWoken = true;
    this.#endPause();
  }

  async #poll() {
    this.#isPolling = true;
    for (let seconds = MIN_POLL; this.#waiting.size; seconds = this.#isWoken ? MIN_POLL : Math.min(MAX_POLL, seconds * 2)) {
      this.#isWoken = false;
      const after = await this.#update();
      const pause = idleTimer(this.#waiting.size && !this.#isWoken ? Math.max(seconds, after) : after);
      if (!after) this.#endPause = pause.end;
      await pause.ended;
      this.#endPause = () => {};
    }
    this.#isPolling = false;
  }

  /** Returns the seconds before the next request. */
  async #update() {
    const [{ fetch }] = this.#waiting.values();
    const { messages, after } = await fetch(this.#url);
    if (!after) this.#admit(messages);
    return after;
  }

  #admit(messages) {
    for (const [reply, { show, then }] of this.#waiting) {
      const message = messages?.find(({ message_id }) => message_id === reply.messageId);
      if (message?.state === "queued") show(message.position);
      else if (this.acquire(reply)) {
        this.#waiting.delete(reply);
        then(messages !== undefined);
      }
    }
  }
}

/**
 * Posts `message`, or follows the reply `messageId`, and reconnects as needed.
 * Throws a TypeError if `url` is invalid; every other failure is an `error` event.
 * @param {ChatOptions} options
 */
export function streamChat(options) {
  return new Reply(CHAT, { url: "/api/chat/stream", clientMessageId: randomId(), ...options });
}

/**
 * Follows a conversation's reply, and starts it if it is not running: `url` is `/api/conversations/<id>/stream?messageId=…`.
 * Waits while another reply of the conversation runs. `complete` has a null `messageId` if a reply was stored before.
 * @param {ChatOptions} options
 */
export function followReply(options) {
  return new Reply(CONVERSATION, options);
}

/**
 * Yields the events of a response's body. Throws if reading fails. Leaving the loop cancels the body.
 * @param {ReadableStream<Uint8Array>} body
 */
export async function* readEvents(body, parser = new EventParser(), connection = undefined) {
  const reader = body.getReader();
  const cancel = () => reader.cancel().catch(() => {}); // It rejects if the body has failed.
  connection?.ended.then(cancel); // In Node 20 a read hangs if its fetch is aborted right after the last byte.
  try {
    for (let read = await reader.read(); !read.done; read = await reader.read()) {
      connection?.reset();
      yield* parser.feed(read.value);
    }
  } finally {
    cancel();
  }
}

/** Parses an event stream incrementally: https://html.spec.whatwg.org/#event-stream-interpretation. */
export class EventParser {
  lastEventId = "";
  /** @type {number | null} Milliseconds. */
  retry = null;
  #decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  #skip = "\uFEFF"; // Only the first BOM is skipped; some decoders would skip later ones.
  #line = "";
  #block = { event: "", data: [], id: null };

  /**
   * `id` is the last event id; `numbered` tells whether this event set it.
   * @param {Uint8Array} bytes @returns {{event: string, data: string, id: string, numbered: boolean}[]}
   */
  feed(bytes) {
    const text = this.#decoder.decode(bytes, { stream: true });
    if (!text) return [];
    const lines = (text[0] === this.#skip ? text.slice(1) : text).split(/\r\n?|\n/);
    this.#skip = text.endsWith("\r") ? "\n" : ""; // The second half of a split CRLF.
    lines[0] = this.#line + lines[0]; // Only new text is searched: long lines take linear time.
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

/** A reply that is being followed. `streamChat({ ...options, ...reply })` resumes it after `connection_lost`. */
class Reply {
  #protocol;
  #options;
  #lifetime;
  #connection = idleTimer(0);
  #wake = () => {};
  #queue;
  #continues = false; // The server finishes the reply without a stream.
  #isPaused = false;
  #isParked = false; // Closed its stream, or never read it.
  #isKept = false; // The positions are unknown, so the stream is kept while the message is queued.
  #grace = 0;
  #position = 0;
  #endTurn = () => {};
  #stopAt = 0;
  #delivered = new Set();
  #unnumbered = 0;
  #skipToLast = false;
  #stopping = false;
  #retry = 0;
  #failures = 0;
  #failingSince = 0;
  #last = null;

  /** @param {ChatOptions} options */
  constructor(protocol, { url, messageId = "", lastEventId = "", clientMessageId, ...options }) {
    this.#protocol = protocol;
    this.#options = { ...options, url: new Request(url).url };
    this.#queue = protocol === CHAT ? Queue.at(this.#options.url) : null;
    this.#lifetime = idleTimer(Infinity, options.signal);
    this.messageId = messageId;
    this.lastEventId = lastEventId;
    this.clientMessageId = clientMessageId;
    /** The last event. Rejects with the signal's reason when that is aborted. @type {Promise<LastEvent>} */
    this.done = this.#run();
    this.done.catch(() => {}); // Callers that abort need not handle the rejection.
  }

  /** Ends the reply for every reader. Resolves with its last event: `stopped`, or another that came first. */
  stop() {
    this.#stopping = true;
    this.#wake();
    this.#endTurn();
    this.#sendStop();
    return this.done;
  }

  /** Closes the stream, if the server continues the reply without it: as in a hidden page. */
  pause() {
    this.#isPaused = true;
    this.#park();
  }

  /** Continues after the last event. */
  resume() {
    this.#isPaused = false;
    this.#endTurn();
  }

  async #run() {
    const { signal } = this.#lifetime;
    await null; // Callbacks run only after the caller has received the object.
    globalThis.addEventListener?.("online", () => this.#wake(), { signal });
    globalThis.document?.addEventListener("visibilitychange", () => this.#onVisibility(), { signal });
    while (!signal.aborted) {
      if (this.#isParked) await this.#waitForTurn();
      const problem = signal.aborted ? null : await this.#connect();
      if (problem && !signal.aborted) await this.#recover(problem);
    }
    this.#queue?.release(this);
    if (this.#last) return this.#last;
    throw this.#options.signal.reason;
  }

  #onVisibility() {
    if (document.hidden) return this.#park();
    this.#wake();
    this.#endTurn();
  }

  /** Whether nobody sees the reply now. */
  get #isSuspended() {
    return this.#isPaused || globalThis.document?.hidden === true;
  }

  #park() {
    if (!this.#continues || this.#stopping) return;
    this.#isParked = true;
    this.#queue?.release(this);
    this.#connection.end();
    this.#endTurn();
  }

  /** Waits without a stream while nobody sees the reply, or its message is queued. */
  async #waitForTurn() {
    const { signal } = this.#lifetime;
    const canOpen = () => !this.#isSuspended && (!this.#queue || this.#queue.isHeldBy(this));
    this.#call("onConnection", { state: "paused" });
    while (!signal.aborted && !this.#stopping && !canOpen()) {
      const turn = idleTimer(Infinity, signal);
      const then = (isKnown) => ((this.#isKept = !isKnown), turn.end());
      const show = (position) => this.#showPosition(position);
      const fetch = (url) => this.#fetchActive(url);
      const leave = this.#isSuspended ? null : this.#queue.wait(this, { fetch, show, then });
      this.#endTurn = turn.end;
      await turn.ended;
      leave?.();
    }
    this.#endTurn = () => {};
    this.#isParked = false;
    this.#failures = this.#failingSince = 0;
  }

  #showPosition(position) {
    if (position === this.#position) return;
    this.#position = position;
    this.#call("onEvent", { type: "status", message: "Message queued...", position });
  }

  async #fetchActive(url) {
    const connection = this.#newConnection();
    try {
      const response = await this.#request("GET", url);
      const { messages } = (await response.json()) ?? {};
      return { messages: Array.isArray(messages) ? messages : undefined, after: retryAfter(response) };
    } catch {
      return { after: 0 };
    } finally {
      connection.end();
    }
  }

  #newConnection() {
    const { idleTimeoutSeconds = 45 } = this.#options;
    return (this.#connection = idleTimer(idleTimeoutSeconds, this.#lifetime.signal));
  }

  /** Runs one connection. Resolves with the problem that ended it, or undefined if the next one may start at once. */
  async #connect() {
    const connection = this.#newConnection();
    const parser = new EventParser();
    this.#wake = connection.check;
    this.#call("onConnection", { state: "connecting" });
    try {
      const response = await this.#open();
      if (response.status === 204) return this.#onNoContent();
      const type = response.headers.get("Content-Type") ?? "";
      if (!response.ok || !type.startsWith("text/event-stream")) return await this.#onRefusal(response);
      this.messageId ||= response.headers.get("X-Message-ID") ?? "";
      this.#call("onConnection", { state: "open" });
      if (this.#stopping) this.#sendStop();
      this.#continues = response.headers.get("X-On-Disconnect") === "continue";
      const isFree = !this.#queue || this.#queue.acquire(this);
      if (this.#isSuspended || !isFree) this.#park();
      if (!this.#isParked) for await (const event of readEvents(response.body, parser, connection)) this.#deliver(event);
    } catch {
      // Refused, reset, idle or offline: fetch does not distinguish them.
    } finally {
      connection.end();
      clearTimeout(this.#grace);
      if (parser.retry !== null) this.#retry = parser.retry / 1000;
    }
    return this.#isParked ? undefined : { failure: LOST };
  }

  /** Posts the message with its idempotency key until the message id is known; resumes with GET after that. */
  #open() {
    const { message, body, url } = this.#options;
    this.#unnumbered = 0;
    if (this.messageId || this.#protocol === CONVERSATION) {
      const resume = this.lastEventId && { "Last-Event-ID": asBytes(this.lastEventId) };
      return this.#request("GET", this.#protocol.followUrl(url, this.messageId), resume);
    }
    const content = JSON.stringify({ message, ...body, client_message_id: this.clientMessageId });
    return this.#request("POST", url, { "Content-Type": "application/json", "X-Chat-Resume": "1" }, content);
  }

  /** A stop that fails is sent again: after the time of a `Retry-After`, or else by the next connection. */
  async #sendStop() {
    const connection = this.#connection;
    if (!this.messageId || this.#isParked) return; // `#connect` sends it once the stream is open.
    await idleTimer((this.#stopAt - Date.now()) / 1000, connection.signal).ended;
    if (connection.signal.aborted) return;
    const url = this.#protocol.stopUrl(this.#options.url, this.messageId);
    const response = await this.#request("POST", url).catch(() => null);
    if (response?.status < 500 && response.status !== 429) return;
    const after = response ? retryAfter(response) : 0;
    this.#stopAt = Date.now() + after * 1000;
    if (after) return this.#sendStop();
    connection.end();
  }

  async #request(method, url, extra, body) {
    const { headers, credentials, fetch = globalThis.fetch } = this.#options;
    const { signal, ended } = this.#connection;
    const all = new Headers(await Promise.race([typeof headers === "function" ? headers() : headers, ended]));
    Object.entries(extra || {}).forEach(([name, value]) => all.set(name, value));
    return fetch(url, { method, headers: all, body, credentials, signal });
  }

  /** A 204: the reply is stored, or all its events were seen; then they are read again to deliver the last one. */
  #onNoContent() {
    if (this.#protocol === CONVERSATION) return this.#finish({ type: "complete", messageId: null });
    if (!this.lastEventId) return { failure: UNEXPECTED, final: true };
    this.lastEventId = "";
    this.#skipToLast = true;
  }

  async #onRefusal(response) {
    const problem = await refusal(response, this.messageId !== "");
    const busy = this.#protocol === CONVERSATION && problem.failure.code === "busy";
    if (busy && this.#stopping) return this.#finish({ type: "stopped", messageId: null });
    return busy ? { ...problem, final: false, busy, after: problem.after || BUSY_PAUSE } : problem;
  }

  #deliver(streamEvent) {
    const event = this.#protocol.decode(streamEvent);
    if (this.#lifetime.signal.aborted || typeof event?.type !== "string") return;
    const fromNewLog = streamEvent.numbered ? streamEvent.id === LOWEST_ID : this.lastEventId !== "";
    if (event.type === "restart" && fromNewLog) this.#delivered.clear(); // Its ids start anew.
    const isLast = ["complete", "stopped", "error"].includes(event.type);
    const isContent = event.type !== "keepalive";
    if (isContent && this.#wasDelivered(streamEvent) && !isLast) return;
    this.#failures = this.#failingSince = 0;
    if (isContent) this.#onPosition(event);
    if (isLast) this.#end(event);
    else if (isContent && !this.#skipToLast) this.#call("onEvent", event);
  }

  /** A page's message that stays queued needs no stream. */
  #onPosition({ position = 0 }) {
    this.#position = position;
    clearTimeout(this.#grace);
    if (position && this.#queue && !this.#isKept) this.#grace = setTimeout(() => this.#park(), QUEUED_GRACE * 1000);
  }

  /** A conversation's reply that a restarting server could not finish was not stored: it is requested again. */
  #end(event) {
    if (this.#protocol !== CONVERSATION || event.code !== "server_restarting") return this.#finish(event);
    this.lastEventId = "";
    this.#delivered.clear();
    this.#call("onEvent", { type: "restart" });
    this.#connection.end();
  }

  /** Events without an id are sent again after a resume: they are identified by their position after the last id. */
  #wasDelivered({ id, numbered }) {
    if (numbered) [this.lastEventId, this.#unnumbered] = [id, 0];
    const key = numbered ? id : `${this.lastEventId}\n${++this.#unnumbered}`;
    if (this.#delivered.has(key)) return true;
    this.#delivered.add(key);
    return false;
  }

  async #recover({ failure, final = false, after = 0, busy = false }) {
    const { giveUpAfterSeconds = 120 } = this.#options;
    this.#failingSince = (!busy && this.#failingSince) || Date.now(); // Waiting for a busy conversation is not limited.
    const remaining = giveUpAfterSeconds - (Date.now() - this.#failingSince) / 1000;
    if (final || after >= remaining) return this.#finish(after ? { ...failure, retry_after: Math.ceil(after) } : failure);
    // Exponential backoff with full jitter: clients disconnected together must not reconnect together.
    const jitter = Math.random() * Math.min(MAX_PAUSE, MIN_PAUSE * 2 ** this.#failures++);
    // Browsers may be wrong about being offline, so that only makes the pauses longer.
    const least = globalThis.navigator?.onLine === false ? MAX_PAUSE : 0;
    const seconds = Math.min(remaining, Math.max(after, this.#retry, least) + jitter);
    const pause = idleTimer(seconds, this.#lifetime.signal);
    this.#wake = after && !busy ? () => {} : pause.end;
    this.#call("onConnection", { state: "waiting", seconds, failure });
    await pause.ended;
  }

  #finish(last) {
    this.#last = last;
    this.#call("onEvent", last);
    this.#lifetime.end();
  }

  /** An exception in a callback is reported as an unhandled rejection and does not end the stream. */
  #call(name, argument) {
    try {
      if (!this.#lifetime.signal.aborted) this.#options[name]?.(argument);
    } catch (error) {
      Promise.reject(error);
    }
  }
}

/** Aborts `signal` after `seconds` without `reset()`, with its parent, or on `end()`. Leaves no timer or listener behind. */
function idleTimer(seconds, parent) {
  const controller = new AbortController();
  const { signal } = controller;
  const ended = new Promise((resolve) => signal.addEventListener("abort", resolve));
  let activeAt = Date.now();
  let timer;
  const reset = () => (activeAt = Date.now());
  const end = () => {
    clearTimeout(timer);
    controller.abort();
  };
  const check = () => {
    clearTimeout(timer); // Timers do not advance while the machine sleeps; the clock does.
    const remaining = activeAt + seconds * 1000 - Date.now();
    if (remaining <= 0) end();
    else if (!signal.aborted) timer = setTimeout(check, Math.min(remaining, 2 ** 31 - 1)); // The longest that setTimeout takes.
  };
  parent?.addEventListener("abort", end, { signal });
  if (parent?.aborted) end();
  check();
  return { signal, ended, reset, check, end };
}

/** Temporary are a 429, a 5xx that names `Retry-After` or is a proxy's, and any 5xx once the reply exists. */
async function refusal(response, isFollowing) {
  const content = await response.json().catch(() => null);
  const ours = typeof content?.error === "string" && typeof content.code === "string";
  const after = retryAfter(response);
  const temporary = response.status === 429 || (response.status >= 500 && (isFollowing || after > 0 || !ours));
  const failure = ours ? { ...content, type: "error" } : temporary ? LOST : UNEXPECTED;
  return { failure, final: !temporary, after };
}

/** The seconds until the moment of a `Retry-After`; 0 without one. @param {Response} response */
export function retryAfter({ headers }) {
  const value = headers.get("Retry-After"); // Seconds, or a date.
  return Math.max(0, Number(value) || (Date.parse(value) - Date.now()) / 1000) || 0;
}

/** `crypto.randomUUID` is missing on pages loaded over plain http. */
function randomId() {
  return crypto.getRandomValues(new Uint32Array(4)).join("-");
}

/** Encodes as UTF-8 in a byte string, as `EventSource` sends an id. */
const asBytes = (text) => String.fromCharCode(...new TextEncoder().encode(text));

function parseJSON(data) {
  try {
    return JSON.parse(data);
  } catch {
    return null;
  }
}
