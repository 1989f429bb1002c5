// One chat: what was said, the replies that are being written, and what can be done with them.

import { Failure } from "./api.js";
import { button, make } from "./dom.js";
import { addEditing, effective } from "./editing.js";
import { Run } from "./run.js";
import { Answer, Question, Transcript } from "./transcript.js";
import { newTurn, randomKey } from "./turns.js";

/**
 * @typedef {import("./turns.js").Turn} Turn
 * @typedef {object} Source Where a chat is stored: a Conversation, or DirectChat.
 * @property {boolean} queues Whether messages may wait behind one that is being answered.
 * @property {boolean} continues Whether replies are finished without a reader.
 * @property {(turns: Turn[]) => Promise<{turns: Turn[] | null, running: Turn[], accept?: () => void}>} load The newest turns,
 *   null where they are those given; those whose replies are being written; `accept` is called once they are shown.
 * @property {() => Promise<Turn[]>} older
 * @property {(turn: Turn) => Promise<void>} send Throws a Failure.
 * @property {(turn: Turn, options: object) => object} stream The reply, as sse.js gives it.
 * @property {(turn: Turn, messageId: string) => void} opened
 * @property {(turn: Turn, last: object, text: string) => {text?: string, reply?: object, note?: string,
 *   again?: "ask" | "resume" | "send" | null, reload?: boolean}} ended
 */
export class ChatView {
  transcript = new Transcript(() => this.#older());
  #on;
  #turns = [];
  #loading = null;
  #stale = false; // Something changed that could not be shown while a reply was being written.
  #left = false;

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

  /** Shows what is new, by this tab or by others. Throws a Failure. */
  open() {
    this.#loading ??= this.#open().finally(() => (this.#loading = null));
    return this.#loading;
  }

  async #open() {
    this.#stale = this.locked;
    if (this.locked) return;
    const { turns, running, accept } = await this.source.load(this.#turns);
    this.#stale = this.locked || this.#turns.some(({ run }) => run && !run.messageId); // Ours might be one of `running`.
    if (this.#left || this.locked) return;
    if (turns && !this.busy) this.#draw(turns);
    if (!turns || !this.busy) accept?.();
    if (!this.#stale) running.forEach((turn) => this.#follow(turn));
    this.#offer();
    this.transcript.fill();
    this.#on.change(this);
  }

  /** Another tab changed something. */
  async changed() {
    await this.#loading?.catch(() => {});
    await this.open().catch(() => {}); // It is looked at again when the tab is.
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
    return turn.replies.length ? [...question, this.#shown(turn, turn.replies.length - 1)] : question;
  }

  #follow(turn) {
    if (!this.#turns.includes(turn)) this.#add(turn);
    if (!turn.run) this.#begin(turn);
  }

  /** Nobody writes a reply to the last question: it was stopped, or failed. */
  #offer() {
    const turn = this.#turns.at(-1);
    if (!turn?.question?.id || turn.replies.length || turn.pending) return;
    turn.pending = new Answer();
    turn.pending.actions.append(button("Ask for a reply", () => this.#begin(turn)));
    this.transcript.append(turn.pending.element);
  }

  send(content) {
    this.#begin(this.#add(newTurn({ content })));
  }

  sendVoice(body) {
    this.#begin(this.#add(this.source.voiceTurn(body)));
  }

  #add(turn) {
    this.#turns.push(turn);
    if (turn.question) this.transcript.append(this.#question(turn));
    return turn;
  }

  /** The one that runs; the others wait behind it. */
  stop() {
    this.#turns.find(({ run }) => run)?.run.stop();
  }

  /** Closes its streams; the replies go on. */
  leave() {
    this.#left = true;
    for (const { run } of this.#turns) run?.leave();
  }

  async #begin(turn) {
    if (turn.run) return;
    const answer = this.#showPending(turn);
    const run = new Run(answer, () => this.source.opened(turn, run.messageId));
    turn.run = run;
    this.#on.change(this);
    const start = run.start(() => this.#send(turn), (options) => this.source.stream(turn, options));
    const last = await start.catch((problem) => this.#failed(problem));
    turn.run = null;
    if (!this.#left) this.#end(turn, answer, last);
  }

  #failed(problem) {
    const error = problem instanceof Failure ? problem.message : "Something went wrong.";
    if (this.#left && problem instanceof Failure) this.#on.complain(`${error} Your message was not sent.`);
    return { type: "error", error, code: problem.code };
  }

  async #send(turn) {
    const isNew = !turn.question?.id;
    await this.source.send(turn);
    if (!isNew || !turn.question?.id) return;
    const before = turn.element;
    before.replaceWith(this.#question(turn));
    this.#on.change(this, true);
  }

  #showPending(turn) {
    const answer = new Answer();
    if (turn.answer) turn.answer.element.hidden = true; // Of several replies to one question one is shown.
    if (turn.pending) turn.pending.element.replaceWith(answer.element);
    else this.transcript.append(answer.element);
    turn.pending = answer;
    this.transcript.toEnd();
    return answer;
  }

  #end(turn, answer, last) {
    const { text, reply, note, again, reload } = this.source.ended(turn, last, answer.said);
    if (turn.answer) turn.answer.element.hidden = false;
    answer.end(text);
    if (note !== undefined) answer.note(note);
    if (last.type === "error") answer.fail(last.error, again && (() => this.#again(turn, again, last)));
    else if (again) answer.actions.append(button("Try again", () => this.#again(turn, again, last)));
    if (reply) this.#keep(turn, answer, reply);
    if (reload) this.#discard(turn);
    if (last.type === "complete" && reply) answer.announce();
    this.#on.change(this, true);
    if (reload || this.#stale) this.changed();
  }

  #keep(turn, answer, reply) {
    turn.replies.push(reply);
    turn.answer?.element.remove();
    turn.answer = answer;
    turn.pending = null;
    answer.speak(reply);
    this.#equip(turn, turn.replies.length - 1, answer);
  }

  #discard(turn) {
    turn.pending.element.remove();
    turn.pending = null;
  }

  #again(turn, how, { resume }) {
    if (how === "send" && !turn.body) return this.send(turn.question.content);
    if (how === "send") return this.sendVoice(turn.body);
    if (how === "resume") Object.assign(turn, resume);
    this.#begin(turn);
  }

  #question(turn) {
    const view = new Question(effective(turn.question));
    const isLast = () => turn === this.#turns.at(-1) && !this.busy;
    const next = () => (isLast() ? () => isLast() && this.#ask(turn, "") : null); // Edited, it counts as unanswered.
    if (turn.question.id) addEditing(turn.question, view, this.#save, next);
    turn.element = view.element;
    return view.element;
  }

  #shown(turn, index) {
    const view = new Answer();
    view.end(effective(turn.replies[index]));
    view.speak(turn.replies[index]);
    this.#equip(turn, index, view);
    turn.answer = view;
    return view.element;
  }

  #equip(turn, index, view) {
    const { length } = turn.replies;
    if (!turn.replies[index].id) return;
    addEditing(turn.replies[index], view, this.#save, () => null);
    view.actions.append(button("Regenerate", () => this.busy || this.#ask(turn, randomKey()), { class: "again" }));
    if (length < 2) return;
    const to = (other, label, sign) =>
      button(sign, () => this.#exchange(turn, other), { "aria-label": label, disabled: !turn.replies[other] });
    const place = make("span", {}, `${index + 1} of ${length}`);
    view.actions.append(to(index - 1, "Reply before", "‹"), place, to(index + 1, "Reply after", "›"));
  }

  #save = (message, content) => this.source.edit(message, content);

  #exchange(turn, index) {
    const before = turn.answer.element;
    before.replaceWith(this.#shown(turn, index));
    turn.answer.element.querySelector(".actions button:not(:disabled)").focus();
  }

  #ask(turn, regenerate) {
    turn.regenerate = regenerate;
    this.#begin(turn);
  }
}
