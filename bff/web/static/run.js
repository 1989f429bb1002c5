// One reply on its way into the page.

import { button } from "./dom.js";

export class Run {
  #answer;
  #onOpen;
  #handle = null;
  #leaving = new AbortController();
  #wasLeft = false;
  #stopped = false;
  #opened = false;
  #brokenBy = "";
  #takeBack = button("Take back", () => this.stop());

  /** @param {() => void} onOpen Called whenever the stream is open. */
  constructor(answer, onOpen) {
    this.#answer = answer;
    this.#onOpen = onOpen;
    answer.status("…");
  }

  get messageId() {
    return this.#handle?.messageId ?? "";
  }

  /**
   * The last event. Rejects with a Failure of `prepare`, and when the run was left.
   * @param {() => Promise<void>} prepare What has to be done before there is a stream.
   * @param {(options: import("./sse.js").ChatOptions) => ReturnType<typeof import("./sse.js").streamChat>} stream
   */
  async start(prepare, stream) {
    await prepare();
    if (this.#stopped) return { type: "stopped", messageId: null };
    this.#handle = stream({
      onEvent: (event) => this.#onEvent(event),
      onConnection: (connection) => this.#onConnection(connection),
      signal: this.#leaving.signal,
    });
    const last = await this.#handle.done;
    return { ...last, resume: { messageId: this.messageId, clientMessageId: this.#handle.clientMessageId } };
  }

  stop() {
    this.#stopped = true;
    this.#answer.status("Stopping…");
    this.#handle?.stop();
  }

  /** Stops following; the reply goes on. One that has not begun yet is begun first. */
  leave() {
    this.#wasLeft = true;
    if (this.#opened) this.#leaving.abort();
  }

  #onEvent(event) {
    this.#showMended(event);
    if (event.type === "status") this.#showStatus(event);
    else if (event.type === "tool_use") this.#answer.status(`Using ${event.tool ?? "a tool"}…`);
    else if (event.type === "progress") this.#answer.write(event.text);
    else if (event.type === "restart") this.#restart();
  }

  #showStatus({ message, position = 0 }) {
    this.#answer.status(position ? `Waiting, number ${position} in the queue` : message);
    if (position) this.#answer.state.append(" ", this.#takeBack);
  }

  #restart() {
    this.#answer.restart();
    this.#answer.status("…");
    this.#answer.note("The reply was interrupted, and begins again.");
  }

  #onConnection({ state, failure }) {
    if (state === "open") this.#open();
    if (state !== "waiting" || this.#stopped) return;
    if (failure.code === "busy") return this.#answer.status("Another reply in this conversation is being written…");
    this.#brokenBy = failure.code;
    this.#answer.note(`${failure.error} It goes on by itself…`);
  }

  #open() {
    this.#opened = true;
    this.#onOpen();
    if (this.#wasLeft) this.#leaving.abort();
  }

  #showMended({ code, type }) {
    if (!this.#brokenBy) return;
    const mended = this.#brokenBy !== "too_many_requests" && code !== "connection_lost" && type !== "restart";
    this.#answer.note(mended ? "Continued after a break in the connection." : "");
    this.#brokenBy = "";
  }
}
