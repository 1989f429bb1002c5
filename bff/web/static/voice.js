// Records voice messages, which are sent as base64.

import { announce, find } from "./dom.js";

const FORMATS = { "audio/webm": "webm", "audio/mp4": "m4a", "audio/ogg": "ogg" };
const MAX_SECONDS = 300;

/** The microphone button, and the hint that replaces the message field while recording. */
export class Recorder {
  #asking = false; // The browser's permission prompt is open, and recording was not cancelled.
  #recording = null;
  #send;

  /** `send(body)` gets the fields of the request. */
  constructor(send) {
    this.#send = send;
  }

  async toggle() {
    if (this.#asking || this.cancel()) return;
    this.#asking = true;
    const stream = await openMicrophone();
    if (!this.#asking) return release(stream);
    this.#asking = false;
    try {
      this.#recording = new Recording(stream, () => this.finish());
      this.#show("Recording. Send it, or press Esc.");
    } catch {
      release(stream);
      this.#showProblem("The microphone cannot be used.");
    }
  }

  #showProblem(text) {
    this.#show(text);
    setTimeout(() => this.#recording || this.#show(""), 4000);
  }

  /** Sends the recording. Returns whether there was one. */
  finish() {
    const recording = this.#takeRecording();
    recording?.finish().then(this.#send, () => this.#showProblem("The recording cannot be read."));
    return recording !== null;
  }

  /** Discards the recording. Returns whether there was one, or a prompt for one. */
  cancel() {
    const asking = this.#asking;
    this.#asking = false;
    const recording = this.#takeRecording();
    recording?.cancel();
    return asking || recording !== null;
  }

  #takeRecording() {
    const recording = this.#recording;
    this.#recording = null;
    if (recording) {
      this.#show("");
      find("text").focus();
    }
    return recording;
  }

  #show(hint) {
    const recording = this.#recording !== null;
    find("text").hidden = hint !== "";
    find("hint").hidden = hint === "";
    find("hint").textContent = hint;
    find("voice").setAttribute("aria-pressed", String(recording));
    announce(hint);
  }
}

class Recording {
  #recorder;
  #stream;
  #pieces = [];
  #timer = 0;

  constructor(stream, onMaxLength) {
    this.#stream = stream;
    const type = Object.keys(FORMATS).find((format) => MediaRecorder.isTypeSupported(format));
    this.#recorder = new MediaRecorder(stream, type ? { mimeType: type } : {});
    this.#recorder.addEventListener("dataavailable", ({ data }) => this.#pieces.push(data));
    this.#recorder.start();
    this.#timer = setTimeout(onMaxLength, MAX_SECONDS * 1000);
  }

  cancel() {
    clearTimeout(this.#timer);
    try {
      if (this.#recorder.state !== "inactive") this.#recorder.stop();
    } finally {
      release(this.#stream);
    }
  }

  /** Returns the request's fields for a voice message. */
  async finish() {
    const isStopped = this.#recorder.state === "inactive"; // The microphone was unplugged, or its permission withdrawn.
    const stopped = new Promise((resolve) => this.#recorder.addEventListener("stop", resolve));
    this.cancel();
    if (!isStopped) await stopped;
    const type = this.#recorder.mimeType.split(";")[0];
    const audio_base64 = await base64(new Blob(this.#pieces, { type }));
    return { message_type: "audio", audio_base64, audio_format: FORMATS[type] ?? "webm" };
  }
}

/** Returns null if the microphone is missing or denied. */
async function openMicrophone() {
  try {
    return await navigator.mediaDevices.getUserMedia({ audio: true });
  } catch {
    return null;
  }
}

/** Turns the microphone off. */
function release(stream) {
  stream?.getTracks().forEach((track) => track.stop());
}

function base64(blob) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.addEventListener("error", () => reject(reader.error));
    reader.addEventListener("load", () => resolve(String(reader.result).split(",")[1]));
    reader.readAsDataURL(blob);
  });
}
