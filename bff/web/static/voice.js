// A voice message: recorded here, sent as base64.

const FORMATS = { "audio/webm": "webm", "audio/mp4": "m4a", "audio/ogg": "ogg" };
const LONGEST = 300; // Seconds.

/** A recording that runs. Throws, from `start`, where there is no microphone or it may not be used. */
export class Recording {
  #recorder;
  #stream;
  #pieces = [];
  #timer = 0;

  static async start(onLongest) {
    return new Recording(await navigator.mediaDevices.getUserMedia({ audio: true }), onLongest);
  }

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

  /** The rest of a request: `audio_base64`, `audio_format`. */
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
