// A voice message: recorded here, sent as base64.

import { announce, find } from "./dom.js";

const FORMATS = { "audio/webm": "webm", "audio/mp4": "m4a", "audio/ogg": "ogg" };
const LONGEST = 300; // Seconds.

/** What the microphone's button does, and what stands in the message's place meanwhile. */
export class Recorder {
  #recording = null;
  #send;

  /** `send(body)`: the rest of a request. */
  constructor(send) {
    this.#send = send;
  }

  async toggle() {
    if (this.cancel()) return;
    try {
      this.#recording = new Recording(await navigator.mediaDevices.getUserMedia({ audio: true }), () => this.finish());
      this.#show("Recording. Send it, or press Esc.");
    } catch {
      this.#show("The microphone cannot be used.");
      setTimeout(() => this.#recording || this.#show(""), 4000);
    }
  }

  /** Whether there was something to send. */
  finish() {
    const recording = this.#taken();
    recording?.finish().then(this.#send);
    return recording !== null;
  }

  cancel() {
    const recording = this.#taken();
    recording?.cancel();
    return recording !== null;
  }

  #taken() {
    const recording = this.#recording;
    this.#recording = null;
    if (recording) this.#show("");
    return recording;
  }

  #show(hint) {
    const recording = this.#recording !== null;
    find("text").hidden = hint !== "";
    find("hint").hidden = hint === "";
    find("hint").textContent = hint;
    find("voice").setAttribute("aria-pressed", String(recording));
    announce(hint);
    if (!hint) find("text").focus();
  }
}

class Recording {
  #recorder;
  #stream;
  #pieces = [];
  #timer = 0;

  constructor(stream, onLongest) {
    this.#stream = stream;
    const type = Object.keys(FORMATS).find((one) => MediaRecorder.isTypeSupported(one));
    this.#recorder = new MediaRecorder(stream, type ? { mimeType: type } : {});
    this.#recorder.addEventListener("dataavailable", ({ data }) => this.#pieces.push(data));
    this.#recorder.start();
    this.#timer = setTimeout(onLongest, LONGEST * 1000);
  }

  /** Gives the microphone back. */
  cancel() {
    clearTimeout(this.#timer);
    if (this.#recorder.state !== "inactive") this.#recorder.stop();
    this.#stream.getTracks().forEach((track) => track.stop());
  }

  /** `audio_base64` and `audio_format`. */
  async finish() {
    const stopped = new Promise((resolve) => this.#recorder.addEventListener("stop", resolve));
    this.cancel();
    await stopped;
    const type = this.#recorder.mimeType.split(";")[0];
    const audio_base64 = await base64(new Blob(this.#pieces, { type }));
    return { message_type: "audio", audio_base64, audio_format: FORMATS[type] ?? "webm" };
  }
}

function base64(blob) {
  return new Promise((resolve) => {
    const reader = new FileReader();
    reader.addEventListener("load", () => resolve(String(reader.result).split(",")[1]));
    reader.readAsDataURL(blob);
  });
}
