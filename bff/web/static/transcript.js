// The scrolling list of messages, oldest first.

import { announce, button, copyButton, make, unseen } from "./dom.js";
import { Markdown, render } from "./markdown.js";
import { ROOT } from "./root.js";

const EDGE_PIXELS = 80; // Closer than this to an edge counts as being there.
const MAX_ANNOUNCED = 600; // Characters of a reply announced to screen readers.

/** `older()` prepends older messages. Resolves with whether there were any. */
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

  focus() {
    this.scroller.focus({ preventScroll: true });
  }

  clear() {
    this.list.replaceChildren();
  }

  append(item) {
    this.list.append(item);
    this.#follow();
  }

  /** Keeps the visible messages where they are. */
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

  /** Loads older messages until the list overflows and its start is out of view. */
  async fill() {
    if (this.#loading || this.element.hidden) return;
    this.#loading = true;
    try {
      while (this.scroller.scrollTop < EDGE_PIXELS && (await this.#older()));
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
    this.#following = scrollHeight - scrollTop - clientHeight < EDGE_PIXELS;
    this.#jump.hidden = this.#following;
    this.fill();
  }
}

/** A user's message, shown as plain text. */
export class QuestionView {
  constructor(text) {
    this.text = make("div", { class: "text", dir: "auto" }, text);
    this.actions = make("div", { class: "actions" });
    this.element = make("li", { class: "question" }, unseen("You said:"), this.text, this.actions);
  }

  show(text) {
    this.text.textContent = text;
  }
}

/** A reply, from its first status to its end. */
export class ReplyView {
  content = "";
  #markdown;
  #reasoning = null;

  constructor() {
    this.text = make("div", { class: "text" });
    this.state = make("p", { class: "status", hidden: true });
    this.noteLine = make("p", { class: "note", hidden: true });
    this.actions = make("div", { class: "actions" });
    const parts = [this.text, this.state, this.noteLine, this.actions];
    this.element = make("li", { class: "answer" }, unseen("Answer:"), ...parts);
    this.#markdown = new Markdown(this.text);
  }

  status(text) {
    this.element.setAttribute("aria-busy", "true");
    this.state.textContent = text;
    this.state.hidden = !text;
  }

  write(piece) {
    if (!this.content) this.status("");
    this.content += piece;
    this.#markdown.write(piece);
  }

  /** Shows what the model says to itself, collapsed. */
  reason(piece) {
    if (!this.content) this.status("Thinking…");
    if (!this.#reasoning) {
      this.#reasoning = make("details", {}, make("summary", {}, "Reasoning"), make("p", { dir: "auto" }));
      this.text.before(this.#reasoning);
    }
    this.#reasoning.lastChild.append(piece);
  }

  /** Discards the text so far. */
  restart() {
    this.finish();
    this.#reasoning?.remove();
    this.#reasoning = null;
    this.content = "";
    this.text.replaceChildren();
    this.#markdown = new Markdown(this.text);
  }

  end(text = this.content) {
    this.finish();
    if (text !== this.content) this.show(text);
    if (text) this.actions.append(copyButton(() => this.content, "answer"));
  }

  show(text) {
    this.content = text;
    this.text.replaceChildren();
    render(this.text, text);
  }

  /** `seconds`: before `retry` may be called. */
  fail(message, retry, seconds = 0) {
    this.finish();
    const retryButton = retry && button("Try again", retry, {}, seconds);
    this.state.before(make("p", { class: "error" }, make("span", {}, message), retryButton));
    announce(message);
  }

  /** Shows a line below the reply; an empty text hides it. */
  note(text) {
    this.#showNote(text);
    if (text) announce(text);
  }

  /** `response`: what the server knows of a finished reply. */
  showTruncated({ truncated }) {
    if (truncated === true) this.#showNote("Cut short: the reply reached the model's limit.");
  }

  #showNote(text) {
    this.noteLine.textContent = text;
    this.noteLine.hidden = !text;
  }

  addAudio({ voice_audio_url: url, voice_audio_base64: base64 }) {
    const src = url ? `${ROOT}/api/audio?url=${encodeURIComponent(url)}` : base64 && `data:audio/mpeg;base64,${base64}`;
    if (src) this.state.before(make("audio", { controls: true, preload: "none", src, "aria-label": "Spoken answer" }));
  }

  /** Announces the finished reply to screen readers, once instead of per token. */
  announce() {
    announce(`Answer: ${this.text.textContent.slice(0, MAX_ANNOUNCED)} ${this.noteLine.textContent}`.trim());
  }

  /** Removes what shows that the reply is running. Idempotent. */
  finish() {
    this.#markdown.end();
    this.element.removeAttribute("aria-busy");
    this.state.hidden = true;
  }
}
