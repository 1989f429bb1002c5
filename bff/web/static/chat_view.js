// One chat: its messages, the running replies, and the actions on them.

import { Failure } from "./api.js";
import { button, make } from "./dom.js";
import { addEditing, effective } from "./editing.js";
import { Run } from "./run.js";
import { QuestionView, ReplyView, Transcript } from "./transcript.js";
import { newTurn, randomKey } from "./turns.js";

/**
 * @typedef {import("./turns.js").Turn} Turn
 * @typedef {object} Source The chat's storage: a Conversation or DirectChat.
 * @property {boolean} queues Whether messages can be sent while a reply runs.
 * @property {boolean} continues Whether replies continue without a reader.
 * @property {(turns: Turn[]) => Promise<{turns: Turn[] | null, running: Turn[], accept?: () => void}>} load The newest turns,
 *   or null if they are the given ones; turns whose replies are running; `accept` is called once they are shown.
 * @property {() => Promise<Turn[]>} older
 * @property {(turn: Turn) => Promise<void>} send Throws a Failure.
 * @property {(turn: Turn, options: object) => object} stream Returns the reply of sse.js.
 * @property {(turn: Turn, messageId: string) => void} opened
 * @property {(turn: Turn, last: object, text: string) => {text?: string, reply?: object, note?: string,
 *   retry?: "request" | "resume" | "send" | null, reload?: boolean}} ended What to show at the end, and which retry to offer.
 */
export class ChatView {
  transcript = new Transcript(() => this.#older());
  #on;
  #turns = [];
  #loading = null;
  #isStale = false; // A change could not be shown while a reply was running.
  #hasLeft = false;
  #isPaused = false;

  /**
   * @param {Source} source
   * @param {{change: (view: ChatView, activity?: boolean) => void, complain: (message: string) => void}} on
   */
  constructor(source, on) {
    this.source = source;
    this.#on = on;
  }

  get busy() {
    return this.#turns.some(({ run }) => run);
  }

  get locked() {
    return this.busy && !this.source.queues;
  }

  get isEmpty() {
    return this.#turns.length === 0;
  }

  /** Loads and shows new messages and running replies. Throws a Failure. */
  open() {
    this.#loading ??= this.#open().finally(() => (this.#loading = null));
    return this.#loading;
  }

  async #open() {
    this.#isStale = this.locked;
    if (this.locked) return;
    const { turns, running, accept } = await this.source.load(this.#turns);
    // A run of ours without an id yet might be one of `running`.
    this.#isStale = this.locked || this.#turns.some(({ run }) => run && !run.messageId);
    if (this.#hasLeft || this.locked) return;
    if (turns && !this.busy) this.#draw(turns);
    if (!turns || !this.busy) accept?.();
    if (!this.#isStale) running.forEach((turn) => this.#follow(turn));
    this.#offerRequest();
    this.transcript.fill();
    this.#on.change(this);
  }

  /** Another tab changed this chat. */
  async changed() {
    await this.#loading?.catch(() => {});
    await this.open().catch(() => {}); // It is opened again when the tab gets the focus.
  }

  #draw(turns) {
    this.#turns = turns;
    this.transcript.clear();
    this.transcript.prepend(turns.flatMap((turn) => this.#elements(turn)));
    this.transcript.toEnd();
  }

  async #older() {
    const turns = await this.source.older();
    this.#turns.unshift(...turns);
    this.transcript.prepend(turns.flatMap((turn) => this.#elements(turn)));
    return turns.length > 0;
  }

  #elements(turn) {
    const question = turn.question ? [this.#question(turn)] : [];
    return turn.replies.length ? [...question, this.#reply(turn, turn.replies.length - 1)] : question;
  }

  #follow(turn) {
    if (!this.#turns.includes(turn)) this.#add(turn);
    if (!turn.run) this.#start(turn);
  }

  /** Offers to request a reply if the last one was stopped or failed. */
  #offerRequest() {
    const turn = this.#turns.at(-1);
    if (!turn?.question?.id || turn.replies.length || turn.pending) return;
    turn.pending = new ReplyView();
    turn.pending.actions.append(button("Ask for a reply", () => this.#start(turn)));
    this.transcript.append(turn.pending.element);
  }

  send(content) {
    this.#start(this.#add(newTurn({ content })));
  }

  sendVoice(body) {
    this.#start(this.#add(this.source.voiceTurn(body)));
  }

  #add(turn) {
    this.#turns.push(turn);
    if (turn.question) this.transcript.append(this.#question(turn));
    return turn;
  }

  /** Stops the running reply; the others are queued behind it. */
  stop() {
    this.#turns.find(({ run }) => run)?.run.stop();
  }

  /** Closes the streams; the replies continue. */
  leave() {
    this.#hasLeft = true;
    for (const { run } of this.#turns) run?.leave();
  }

  /** Closes the streams of a chat that is not shown, until `resume`. */
  pause() {
    this.#isPaused = true;
    for (const { run } of this.#turns) run?.pause();
  }

  resume() {
    this.#isPaused = false;
    for (const { run } of this.#turns) run?.resume();
  }

  async #start(turn) {
    if (turn.run) return;
    const view = this.#showPending(turn);
    const run = new Run(view, () => this.source.opened(turn, run.messageId));
    turn.run = run;
    if (this.#isPaused) run.pause();
    let last;
    try {
      this.#on.change(this);
      last = await run.start(() => this.#send(turn), (options) => this.source.stream(turn, options));
    } catch (problem) {
      last = this.#failed(problem);
    } finally {
      turn.run = null;
    }
    if (!this.#hasLeft) this.#end(turn, view, last);
  }

  #failed(problem) {
    const error = problem instanceof Failure ? problem.message : "Something went wrong.";
    if (this.#hasLeft && problem instanceof Failure) this.#on.complain(`${error} Your message was not sent.`);
    return { type: "error", error, code: problem.code, retry_after: problem.retryAfter };
  }

  async #send(turn) {
    const isNew = !turn.question?.id;
    await this.source.send(turn);
    if (!isNew || !turn.question?.id) return;
    const before = turn.questionElement;
    before.replaceWith(this.#question(turn));
    this.#on.change(this, true);
  }

  #showPending(turn) {
    const view = new ReplyView();
    if (turn.replyView) turn.replyView.element.hidden = true; // Only one of the replies to a question is shown.
    if (turn.pending) turn.pending.element.replaceWith(view.element);
    else this.transcript.append(view.element);
    turn.pending = view;
    this.transcript.toEnd();
    return view;
  }

  #end(turn, view, last) {
    try {
      this.#showEnd(turn, view, last);
    } finally {
      view.finish();
      this.#on.change(this, true);
    }
    if (this.#isStale) this.changed();
  }

  #showEnd(turn, view, last) {
    const { text, reply, note, retry, reload } = this.source.ended(turn, last, view.content);
    if (turn.replyView) turn.replyView.element.hidden = false;
    view.end(text);
    if (note !== undefined) view.note(note);
    if (last.type === "error") view.fail(last.error, retry && (() => this.#retry(turn, retry, last)), last.retry_after);
    else if (retry) view.actions.append(button("Try again", () => this.#retry(turn, retry, last)));
    if (reply) this.#addReply(turn, view, reply);
    if (reload) this.#discard(turn);
    if (last.type === "complete" && reply) view.announce();
    if (reload) this.#isStale = true;
  }

  #addReply(turn, view, reply) {
    turn.replies.push(reply);
    turn.replyView?.element.remove();
    turn.replyView = view;
    turn.pending = null;
    view.addAudio(reply);
    view.showTruncated(reply);
    this.#addActions(turn, turn.replies.length - 1, view);
  }

  #discard(turn) {
    turn.pending.element.remove();
    turn.pending = null;
  }

  #retry(turn, kind, { resume }) {
    if (kind === "send" && !turn.body) return this.send(turn.question.content);
    if (kind === "send") return this.sendVoice(turn.body);
    if (kind === "resume") Object.assign(turn, resume);
    this.#start(turn);
  }

  #question(turn) {
    const view = new QuestionView(effective(turn.question));
    const isLast = () => turn === this.#turns.at(-1) && !this.busy;
    // The server replies again to an edited question.
    const next = () => (isLast() ? () => isLast() && this.#requestReply(turn, "") : null);
    if (turn.question.id) addEditing(turn.question, view, this.#save, next);
    turn.questionElement = view.element;
    return view.element;
  }

  #reply(turn, index) {
    const view = new ReplyView();
    view.end(effective(turn.replies[index]));
    view.addAudio(turn.replies[index]);
    view.showTruncated(turn.replies[index]);
    this.#addActions(turn, index, view);
    turn.replyView = view;
    return view.element;
  }

  #addActions(turn, index, view) {
    const { length } = turn.replies;
    if (!turn.replies[index].id) return;
    addEditing(turn.replies[index], view, this.#save, () => null);
    view.actions.append(button("Regenerate", () => this.busy || this.#requestReply(turn, randomKey()), { class: "again" }));
    if (length < 2) return;
    const to = (other, label, sign) =>
      button(sign, () => this.#switchTo(turn, other), { "aria-label": label, disabled: !turn.replies[other] });
    const position = make("span", {}, `${index + 1} of ${length}`);
    view.actions.append(to(index - 1, "Reply before", "‹"), position, to(index + 1, "Reply after", "›"));
  }

  #save = (message, content) => this.source.edit(message, content);

  #switchTo(turn, index) {
    const before = turn.replyView.element;
    before.replaceWith(this.#reply(turn, index));
    turn.replyView.element.querySelector(".actions button:not(:disabled)").focus();
  }

  #requestReply(turn, regenerate) {
    turn.regenerate = regenerate;
    this.#start(turn);
  }
}
