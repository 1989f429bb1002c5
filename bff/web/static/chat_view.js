// One chat: its messages, the running replies, and the actions on them.

import { Failure } from "./api.js";
import { button } from "./dom.js";
import { Run } from "./run.js";
import { ReplyView, Transcript } from "./transcript.js";
import { addReplyActions, drawQuestion, drawReplies, elementOf, hideReplies, remove } from "./turn_views.js";
import { newTurn } from "./turns.js";

/** @typedef {import("./turns.js").Source} Source */

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
    if (!turns || !this.busy) accept?.();
    if (turns && !this.busy) this.#draw(turns);
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
    const question = turn.question ? [drawQuestion(turn, this.#actions)] : [];
    return [...question, ...drawReplies(turn, this.#actions)];
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
    if (turn.question) this.transcript.append(drawQuestion(turn, this.#actions));
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
    if (this.#hasLeft) run.leave();
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
    before.replaceWith(drawQuestion(turn, this.#actions));
    this.#on.change(this, true);
  }

  #showPending(turn) {
    const view = new ReplyView();
    hideReplies(turn, true); // The new reply takes the place of the others.
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
    hideReplies(turn, false);
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
    turn.replyViews?.forEach(({ element }) => element.remove());
    turn.replies = [reply];
    turn.replyViews = [view];
    turn.pending = null;
    addReplyActions(turn, reply, view, this.#actions);
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

  #actions = {
    save: (message, content) => this.source.edit(message, content),
    askAgain: (turn, content) => this.#whenIdle(() => this.#askAgain(turn, content)),
    regenerate: (turn, key) => this.#whenIdle(() => this.#start(Object.assign(turn, { regenerate: key }))),
    versions: (message) => this.source.versions?.(message) ?? [],
    switchTo: (id) => this.#whenIdle(() => this.#switchTo(id)),
  };

  #whenIdle(work) {
    if (this.busy) this.#on.complain("A reply is being written. Stop it, or wait for its end.");
    else work();
  }

  /** Sends another version of a question. It begins a branch, which is shown from there on. */
  #askAgain(turn, content) {
    for (const gone of this.#turns.splice(this.#turns.indexOf(turn))) remove(gone);
    this.transcript.focus();
    this.#start(this.#add(newTurn({ content, parentId: turn.question.parentId })));
  }

  /** Shows the branch with another version of a message. */
  async #switchTo(id) {
    try {
      await this.source.switchTo(id);
      await this.#loading?.catch(() => {});
      await this.open();
      await this.#focusVersion(id);
    } catch (failure) {
      this.#on.complain(failure.message);
    }
  }

  async #focusVersion(id) {
    const find = () => this.#turns.map((turn) => elementOf(turn, id)).find(Boolean);
    while (!find() && (await this.#older()));
    const element = find();
    if (!element) return; // Another tab has switched once more.
    element.scrollIntoView({ block: "nearest" });
    element.querySelector(".versions button:not(:disabled)")?.focus({ preventScroll: true });
  }
}
