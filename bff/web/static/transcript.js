// What was said, from the oldest to the newest, in a place that scrolls.

import { announce, button, copyButton, make, unseen } from "./dom.js";
import { Markdown, render } from "./markdown.js";

const NEAR = 80; // Pixels from an edge that count as being there.
const READ_ALOUD = 600; // Characters: who wants the rest reads it.

/** `older()` puts more before the oldest, where there is more, and says whether it did. */
export class Transcript {
  #older;
  #loading = false;
  #following = true;
  #jump;

  constructor(older) {
    this.#older = older;
    this.list = make("ol", { class: "log" });
    this.#jump = button("↓ Newest", () => this.toEnd(), { class: "jump", hidden: true });
    this.scroller = make("div", { class: "scroller", tabindex: "0", role: "region", "aria-label": "Messages" }, this.list);
    this.element = make("div", { class: "transcript", hidden: true }, this.scroller, this.#jump);
    this.scroller.addEventListener("scroll", () => this.#scrolled(), { passive: true });
    new ResizeObserver(() => this.#follow()).observe(this.list);
  }

  show() {
    this.element.hidden = false;
    this.toEnd();
  }

  hide() {
    this.element.hidden = true;
  }

  clear() {
    this.list.replaceChildren();
  }

  append(item) {
    this.list.append(item);
    this.#follow();
  }

  /** What is in view stays where it is. */
  prepend(items) {
    const { scrollHeight, scrollTop } = this.scroller;
    this.list.prepend(...items);
    if (!this.#following) this.scroller.scrollTop = scrollTop + this.scroller.scrollHeight - scrollHeight;
  }

  toEnd() {
    this.#following = true;
    this.#follow();
    this.fill();
  }

  /** As long as nothing is there to scroll, or its beginning is in view, more is loaded. */
  async fill() {
    if (this.#loading || this.element.hidden) return;
    this.#loading = true;
    try {
      while (this.scroller.scrollTop < NEAR && (await this.#older()));
    } catch (failure) {
      announce(failure.message);
    } finally {
      this.#loading = false;
    }
  }

  #follow() {
    if (this.#following) this.scroller.scrollTop = this.scroller.scrollHeight;
  }

  #scrolled() {
    const { scrollHeight, scrollTop, clientHeight } = this.scroller;
    this.#following = scrollHeight - scrollTop - clientHeight < NEAR;
    this.#jump.hidden = this.#following;
    this.fill();
  }
}

/** What the user said, as it was typed. */
export class Question {
  constructor(text) {
    this.text = make("div", { class: "text" }, text);
    this.actions = make("div", { class: "actions" });
    this.element = make("li", { class: "question" }, unseen("You said:"), this.text, this.actions);
  }

  show(text) {
    this.text.textContent = text;
  }
}

/** What is answered, from the first status to its end. */
export class Answer {
  said = "";
  #markdown;

  constructor() {
    this.text = make("div", { class: "text" });
    this.state = make("p", { class: "status", hidden: true });
    this.line = make("p", { class: "note", hidden: true });
    this.actions = make("div", { class: "actions" });
    const parts = [this.text, this.state, this.line, this.actions];
    this.element = make("li", { class: "answer" }, unseen("Answer:"), ...parts);
    this.#markdown = new Markdown(this.text);
  }

  status(text) {
    this.element.setAttribute("aria-busy", "true");
    this.state.textContent = text;
    this.state.hidden = !text;
  }

  write(piece) {
    if (!this.said) this.status("");
    this.said += piece;
    this.#markdown.write(piece);
  }

  /** All that was said so far is forgotten. */
  restart() {
    this.#finish();
    this.said = "";
    this.text.replaceChildren();
    this.#markdown = new Markdown(this.text);
  }

  end(text = this.said) {
    this.#finish();
    if (text !== this.said) this.show(text);
    if (text) this.actions.append(copyButton(() => this.said, "answer"));
  }

  show(text) {
    this.said = text;
    this.text.replaceChildren();
    render(this.text, text);
  }

  fail(sentence, again) {
    this.#finish();
    const retry = again && button("Try again", again);
    this.state.before(make("p", { class: "error" }, make("span", {}, sentence), retry));
    announce(sentence);
  }

  /** One discreet line; an empty one takes it away. */
  note(text) {
    this.line.textContent = text;
    this.line.hidden = !text;
    if (text) announce(text);
  }

  speak({ voice_audio_url: url, voice_audio_base64: base64 }) {
    const src = url ? `/api/audio?url=${encodeURIComponent(url)}` : base64 && `data:audio/mpeg;base64,${base64}`;
    if (src) this.state.before(make("audio", { controls: true, preload: "none", src, "aria-label": "Spoken answer" }));
  }

  /** Read aloud once, and not word by word. */
  announce() {
    announce(`Answer: ${this.text.textContent.slice(0, READ_ALOUD)}`);
  }

  #finish() {
    this.#markdown.end();
    this.element.removeAttribute("aria-busy");
    this.state.hidden = true;
  }
}
