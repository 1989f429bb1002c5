// Shows one reply in the page while it streams.

import { button } from "./dom.js";

export class Run {
  #view;
  #onOpen;
  #handle = null;
  #controller = new AbortController();
  #isLeft = false;
  #isPaused = false;
  #isStopped = false;
  #isOpened = false;
  #interruptionCode = "";
  #takeBackButton = button("Take back", () => this.stop());

  /** @param {() => void} onOpen Called each time the stream opens. */
  constructor(view, onOpen) {
    this.#view = view;
    this.#onOpen = onOpen;
    view.status("…");
  }

  get messageId() {
    return this.#handle?.messageId ?? "";
  }

  /**
   * Resolves with the last event. Rejects with a Failure of `prepare`, and after `leave`.
   * @param {() => Promise<void>} prepare Runs before the stream is opened.
   * @param {(options: import("./sse.js").ChatOptions) => ReturnType<typeof import("./sse.js").streamChat>} stream
   */
  async start(prepare, stream) {
    await prepare();
    if (this.#isStopped) return { type: "stopped", messageId: null };
    this.#handle = stream({
      onEvent: (event) => this.#onEvent(event),
      onConnection: (connection) => this.#onConnection(connection),
      signal: this.#controller.signal,
    });
    if (this.#isPaused) this.#handle.pause();
    const last = await this.#handle.done;
    return { ...last, resume: { messageId: this.messageId, clientMessageId: this.#handle.clientMessageId } };
  }

  stop() {
    this.#isStopped = true;
    this.#view.status("Stopping…");
    this.#handle?.stop();
  }

  /** Disconnects; the reply continues. A stream that is not open yet is opened first, so that the reply starts. */
  leave() {
    this.#isLeft = true;
    if (this.#isOpened) this.#controller.abort();
  }

  /** Closes the stream until `resume`, if the reply continues without it. */
  pause() {
    this.#isPaused = true;
    this.#handle?.pause();
  }

  resume() {
    this.#isPaused = false;
    this.#handle?.resume();
  }

  #onEvent(event) {
    this.#showReconnected(event);
    if (event.type === "status") this.#showStatus(event);
    else if (event.type === "tool_use") this.#view.status(`Using ${event.tool ?? "a tool"}…`);
    else if (event.type === "progress") this.#view.write(event.text);
    else if (event.type === "reasoning") this.#view.reason(event.text);
    else if (event.type === "restart") this.#restart();
  }

  #showStatus({ message, position = 0 }) {
    this.#view.status(position ? `Waiting, number ${position} in the queue` : message);
    if (position) this.#view.state.append(" ", this.#takeBackButton);
  }

  #restart() {
    this.#view.restart();
    this.#view.status("…");
    this.#view.note("The reply was interrupted, and begins again.");
  }

  #onConnection({ state, failure }) {
    if (state === "open") this.#open();
    if (state !== "waiting" || this.#isStopped) return;
    if (failure.code === "busy") return this.#view.status("Another reply in this conversation is being written…");
    this.#interruptionCode = failure.code;
    this.#view.note(`${failure.error} It goes on by itself…`);
  }

  #open() {
    this.#isOpened = true;
    this.#onOpen();
    if (this.#isLeft) this.#controller.abort();
  }

  #showReconnected({ code, type }) {
    if (!this.#interruptionCode) return;
    const continued = this.#interruptionCode !== "too_many_requests" && code !== "connection_lost" && type !== "restart";
    this.#view.note(continued ? "Continued after a break in the connection." : "");
    this.#interruptionCode = "";
  }
}
