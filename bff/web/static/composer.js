// Where one writes: Enter sends, Shift+Enter is a new line, Esc stops.

import { announce, find } from "./dom.js";

const canRecord = Boolean(navigator.mediaDevices?.getUserMedia && globalThis.MediaRecorder);

export class Composer {
  #form = find("form");
  #text = find("text");
  #send = find("send");
  #stop = find("stop");
  #voice = find("voice");
  #hint = find("hint");
  #recording = null;
  #on;
  #locked = false;

  constructor(on) {
    this.#on = on;
    this.#form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#submit();
    });
    this.#text.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      this.#submit();
    });
    this.#text.addEventListener("input", () => this.#grow());
    this.#stop.addEventListener("click", () => this.#on.stop());
    this.#voice.addEventListener("click", () => this.#record());
    document.addEventListener("keydown", (event) => event.key === "Escape" && !event.defaultPrevented && this.#escape());
  }

  focus() {
    this.#text.focus({ preventScroll: true });
  }

  /** Gives back what could not be sent, unless something else has been written by now. */
  giveBack(text) {
    if (!this.#text.value) this.#text.value = text;
    this.#grow();
  }

  show({ busy, locked, voice }) {
    this.#locked = locked;
    if (document.activeElement === this.#stop && !busy) this.focus();
    this.#stop.hidden = !busy;
    this.#send.hidden = locked;
    this.#voice.hidden = !voice || !canRecord;
    if (!voice) this.#cancel();
  }

  #submit() {
    if (this.#recording) return this.#finish();
    const text = this.#text.value;
    if (this.#locked || !text.trim()) return;
    this.#text.value = "";
    this.#grow();
    this.#on.send(text);
  }

  #escape() {
    if (document.querySelector("dialog[open]")) return;
    if (this.#recording) this.#cancel();
    else if (!this.#stop.hidden) this.#on.stop();
  }

  /** As high as what is written, up to what the style allows. */
  #grow() {
    this.#text.style.height = "auto";
    this.#text.style.height = `${this.#text.scrollHeight + 2}px`;
  }

  async #record() {
    if (this.#recording) return this.#cancel();
    try {
      const { Recording } = await import("./voice.js");
      this.#recording = await Recording.start(() => this.#finish());
      this.#say("Recording. Send it, or press Esc.");
    } catch {
      this.#say("The microphone cannot be used.");
    }
    this.#shape();
  }

  #cancel() {
    this.#recording?.cancel();
    if (this.#recording) this.#say("");
    this.#recording = null;
    this.#shape();
  }

  async #finish() {
    const recording = this.#recording;
    this.#recording = null;
    this.#say("");
    this.#shape();
    this.#on.voice(await recording.finish());
  }

  #shape() {
    const recording = this.#recording !== null;
    this.#form.classList.toggle("recording", recording);
    this.#text.hidden = recording;
    this.#voice.setAttribute("aria-pressed", String(recording));
  }

  #say(text) {
    this.#hint.textContent = text;
    this.#hint.hidden = !text;
    announce(text);
  }
}
