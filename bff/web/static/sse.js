// @ts-check
/**
 * Chat answers that survive the line they come over: one module, no dependencies, for pages, workers and Node 20.
 *
 * @typedef {{type: "error", error: string, code: string, request_id?: string}} Failure `error` is a sentence for a user.
 * @typedef {{type: "complete" | "stopped", response: {responses: string[], [more: string]: any}} | Failure} LastEvent
 * @typedef {{type: "status", message: string, position?: number} | {type: "progress", text: string}
 *   | {type: "tool_use" | "tool_result", [more: string]: any} | LastEvent} ChatEvent
 * @typedef {{state: "connecting" | "open"} | {state: "waiting", seconds: number, failure: Failure}} Connection
 *
 * @typedef {object} ChatOptions
 * @property {string} [url] Where messages are left; absolute in Node.
 * @property {string} [message] What the user says.
 * @property {object} [body] More of the request: `message_type`, `audio_base64` …
 * @property {string} [clientMessageId] Names the message: it is answered once.
 * @property {string} [messageId] Follows this answer; nothing is said.
 * @property {string} [lastEventId] From after this event, not from the start.
 * @property {(event: ChatEvent) => void} [onEvent] Each event once, and one `LastEvent`.
 * @property {(connection: Connection) => void} [onConnection]
 * @property {AbortSignal} [signal] Leaves the answer, which goes on without us; `stop()` ends it.
 * @property {HeadersInit | (() => HeadersInit | Promise<HeadersInit>)} [headers] A function: for each request.
 * @property {RequestCredentials} [credentials]
 * @property {number} [silenceSeconds] A line that brings nothing for so long (45) is dead.
 * @property {number} [patienceSeconds] A line that stays broken for so long (120) ends the answer: `connection_lost`.
 * @property {typeof globalThis.fetch} [fetch]
 */

const FIRST_PAUSE = 0.5; // Seconds, as all times here.
const LONGEST_PAUSE = 10;
const LOST = { type: "error", error: "The connection was lost.", code: "connection_lost" };
const UNEXPECTED = { type: "error", error: "The server's answer makes no sense.", code: "unexpected_response" };

/**
 * Says `message`, or follows the answer `messageId`, over as many connections as it takes.
 * Throws a TypeError for a `url` that is none; whatever else goes wrong is an `error` event.
 * @param {ChatOptions} options
 */
export function streamChat(options) {
  return new Answer(options);
}

/**
 * The events of a response's body, until it ends; throws what breaks it. Leaving the loop cancels the body.
 * @param {ReadableStream<Uint8Array>} body
 */
export async function* readEvents(body, parser = new EventParser(), line = undefined) {
  const reader = body.getReader();
  const cancel = () => reader.cancel().catch(() => {}); // What broke is broken already.
  line?.over.then(cancel); // Node 20 leaves a reader waiting whose fetch is aborted just as all was said.
  try {
    for (let read = await reader.read(); !read.done; read = await reader.read()) {
      line?.heard();
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

/** One answer on its way to one reader. `streamChat({ ...options, ...answer })` goes on with one that was lost. */
class Answer {
  #options;
  #life;
  #line = wait(0);
  #wake = () => {};
  #told = new Set();
  #unnumbered = 0;
  #onlyLast = false;
  #stopping = false;
  #retry = 0;
  #failures = 0;
  #troubledSince = 0;
  #last = null;

  /** @param {ChatOptions} options */
  constructor({ url = "/api/chat/stream", messageId = "", lastEventId = "", clientMessageId = randomId(), ...options }) {
    this.#options = { ...options, url: new Request(url).url };
    this.#life = wait(Infinity, options.signal);
    this.messageId = messageId;
    this.lastEventId = lastEventId;
    this.clientMessageId = clientMessageId;
    /** The last event. Rejects with the signal's reason where that is aborted. @type {Promise<LastEvent>} */
    this.done = this.#run();
    this.done.catch(() => {}); // Who leaves need not catch.
  }

  /** Ends the answer for everybody. Resolves with its last event: `stopped`, or another that was faster. */
  stop() {
    this.#stopping = true;
    this.#wake();
    this.#sendStop();
    return this.done;
  }

  async #run() {
    const { signal } = this.#life;
    await null; // Nobody is called back before they hold what `streamChat` returns.
    globalThis.addEventListener?.("online", () => this.#wake(), { signal });
    globalThis.document?.addEventListener("visibilitychange", () => document.hidden || this.#wake(), { signal });
    while (!signal.aborted) {
      const problem = await this.#connect();
      if (problem && !signal.aborted) await this.#recover(problem);
    }
    if (this.#last) return this.#last;
    throw this.#options.signal.reason;
  }

  /** One connection, from its request to its end: what was wrong with it, or nothing where the next may follow at once. */
  async #connect() {
    const { silenceSeconds = 45 } = this.#options;
    const line = (this.#line = wait(silenceSeconds, this.#life.signal));
    const parser = new EventParser();
    this.#wake = line.look;
    this.#call("onConnection", { state: "connecting" });
    try {
      const response = await this.#ask();
      if (response.status === 204 && this.lastEventId) return this.#askForLast();
      const type = response.headers.get("Content-Type") ?? "";
      if (!response.ok || !type.startsWith("text/event-stream")) return await refusal(response, this.messageId !== "");
      this.messageId ||= response.headers.get("X-Message-ID") ?? "";
      this.#call("onConnection", { state: "open" });
      if (this.#stopping) this.#sendStop();
      for await (const event of readEvents(response.body, parser, line)) this.#tell(event);
    } catch {
      // Refused, cut, silent or offline: fetch does not tell them apart.
    } finally {
      line.end();
      if (parser.retry !== null) this.#retry = parser.retry / 1000;
    }
    return { failure: LOST };
  }

  /** Says the message, under one name, until it is known to have arrived; from then on, asks for what follows. */
  #ask() {
    const { message, body } = this.#options;
    this.#unnumbered = 0;
    if (this.messageId) return this.#request("GET", "", this.lastEventId && { "Last-Event-ID": asBytes(this.lastEventId) });
    const content = JSON.stringify({ message, ...body, client_message_id: this.clientMessageId });
    return this.#request("POST", "", { "Content-Type": "application/json", "X-Chat-Resume": "1" }, content);
  }

  /** A stop that does not arrive breaks the line, and goes out again with the next. */
  async #sendStop() {
    const line = this.#line;
    if (!this.messageId) return; // The line that brings it sends the stop.
    const { status } = await this.#request("POST", "/stop").catch(() => ({ status: 503 }));
    if (status === 429 || status >= 500) line.end();
  }

  async #request(method, tail, ours, body) {
    const { url, headers, credentials, fetch = globalThis.fetch } = this.#options;
    const { signal, over } = this.#line;
    const all = new Headers(await Promise.race([typeof headers === "function" ? headers() : headers, over]));
    Object.entries(ours || {}).forEach(([name, value]) => all.set(name, value));
    const path = this.messageId && `/${encodeURIComponent(this.messageId)}${tail}`;
    return fetch(url.replace(/(?=\?|$)/, path), { method, headers: all, body, credentials, signal });
  }

  /** Whoever gave us `lastEventId` has seen the end, we have not: all is read once more, and only the end is told. */
  #askForLast() {
    this.lastEventId = "";
    this.#onlyLast = true;
  }

  #tell(streamEvent) {
    const event = parsed(streamEvent.data);
    if (this.#life.signal.aborted || typeof event?.type !== "string") return;
    const last = ["complete", "stopped", "error"].includes(event.type);
    const content = event.type !== "keepalive";
    if (content && this.#wasTold(streamEvent) && !last) return;
    this.#failures = this.#troubledSince = 0;
    if (last) this.#finish(event);
    else if (content && !this.#onlyLast) this.#call("onEvent", event);
  }

  /** Events without an id come again after the last one with one: their number after it is their name. */
  #wasTold({ id, numbered }) {
    if (numbered) [this.lastEventId, this.#unnumbered] = [id, 0];
    const name = numbered ? id : `${this.lastEventId}\n${++this.#unnumbered}`;
    if (this.#told.has(name)) return true;
    this.#told.add(name);
    return false;
  }

  async #recover({ failure, final = false, after = 0 }) {
    const { patienceSeconds = 120 } = this.#options;
    this.#troubledSince ||= Date.now();
    const left = patienceSeconds - (Date.now() - this.#troubledSince) / 1000;
    if (final || after >= left) return this.#finish(failure);
    // Anything up to a bound that doubles: those who were cut together must not come back together.
    const jitter = Math.random() * Math.min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** this.#failures++);
    const offline = globalThis.navigator?.onLine === false;
    const seconds = offline ? left : Math.min(left, Math.max(after, this.#retry) + jitter);
    const pause = wait(seconds, this.#life.signal);
    this.#wake = after ? () => {} : pause.end;
    this.#call("onConnection", { state: "waiting", seconds, failure });
    await pause.over;
  }

  #finish(last) {
    this.#last = last;
    this.#call("onEvent", last);
    this.#life.end();
  }

  /** A callback that throws is reported, as an unhandled rejection, and the answer goes on. */
  #call(name, said) {
    try {
      if (!this.#life.signal.aborted) this.#options[name]?.(said);
    } catch (error) {
      Promise.reject(error);
    }
  }
}

/** Over after so many seconds of silence, with its parent, or by `end()`; no timer and no listener outlives it. */
export function wait(seconds, parent) {
  const life = new AbortController();
  const { signal } = life;
  const over = new Promise((resolve) => signal.addEventListener("abort", resolve));
  let heardAt = Date.now();
  let timer;
  const heard = () => (heardAt = Date.now());
  const end = () => {
    clearTimeout(timer);
    life.abort();
  };
  const look = () => {
    clearTimeout(timer); // Timers stand still while a machine sleeps, the clock does not.
    const left = heardAt + seconds * 1000 - Date.now();
    if (left <= 0) end();
    else if (!signal.aborted) timer = setTimeout(look, Math.min(left, 2 ** 31 - 1));
  };
  parent?.addEventListener("abort", end, { signal });
  if (parent?.aborted) end();
  look();
  return { signal, over, heard, look, end };
}

/** What may pass: a 429, a deploy, a proxy's page, and whatever keeps us from an answer that exists. The rest is final. */
async function refusal(response, following) {
  const said = await response.json().catch(() => null);
  const ours = typeof said?.error === "string" && typeof said.code === "string";
  const asked = response.headers.get("Retry-After"); // Seconds, or a date.
  const after = Math.max(0, Number(asked) || (Date.parse(asked) - Date.now()) / 1000) || 0;
  const passes = response.status === 429 || (response.status >= 500 && (following || after > 0 || !ours));
  return { failure: ours ? { ...said, type: "error" } : passes ? LOST : UNEXPECTED, final: !passes, after };
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
