// The message field: Enter sends, Shift+Enter inserts a new line, Esc stops the reply.

import { load } from "./api.js";
import { find, isComposing } from "./dom.js";
import { attempt } from "./store.js";

const canRecord = attempt(() => navigator.mediaDevices.getUserMedia && MediaRecorder) !== undefined;

export class Composer {
  #text = find("text");
  #stop = find("stop");
  #recorder = null;
  #locked = true; // Until a chat is shown.
  #on;

  /** @param {{send: (text: string) => void, voice: (body: object) => void, stop: () => void}} on */
  constructor(on) {
    this.#on = on;
    find("form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#submit();
    });
    this.#text.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.shiftKey || isComposing(event)) return;
      event.preventDefault();
      this.#submit();
    });
    this.#text.addEventListener("input", () => this.#grow());
    this.#stop.addEventListener("click", () => this.#on.stop());
    document.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && !event.defaultPrevented && !isComposing(event)) this.#escape();
    });
  }

  focus() {
    this.#text.focus({ preventScroll: true });
  }

  /** `locked`: sending is disabled while a reply runs. */
  show({ busy, locked, source: { voice, placeholder } }) {
    this.#text.placeholder = placeholder;
    this.#locked = locked;
    if (document.activeElement === this.#stop && !busy) this.focus();
    this.#stop.hidden = !busy;
    find("send").hidden = locked;
    find("voice").hidden = !voice || !canRecord;
    if (!voice) this.#recorder?.cancel();
  }

  #submit() {
    const text = this.#text.value;
    if (this.#recorder?.finish() || this.#locked || !text.trim()) return;
    this.#text.value = "";
    this.#grow();
    this.#on.send(text);
  }

  #escape() {
    if (document.querySelector("dialog[open]") || this.#recorder?.cancel()) return;
    if (!this.#stop.hidden) this.#on.stop();
  }

  /** Grows the field with its text, up to the style's maximum height. */
  #grow() {
    this.#text.style.height = "auto";
    this.#text.style.height = `${this.#text.scrollHeight + 2}px`;
  }

  async record() {
    const { Recorder } = await load("./voice.js");
    this.#recorder ??= new Recorder(this.#on.voice);
    if (!find("voice").hidden) this.#recorder.toggle();
  }
}
