// A conversation that is kept: said, edited, and replied to by an agent for as long as somebody reads.

import { Failure, ask, tell } from "./api.js";
import { button, make } from "./dom.js";
import { addEditing, effective } from "./editing.js";
import { reply } from "./reply.js";
import { Answer, Question, Transcript } from "./transcript.js";
import { anyText, asking, keepAsking, signature, turnsOf } from "./turns.js";

const PAGE = 100;
const TURNS = 30; // Drawn at once; earlier ones as they are scrolled to.

export class StoredChat {
  voice = false;
  transcript = new Transcript(async () => this.#older());
  #onState;
  #path;
  #life = null;
  #turns = [];
  #first = 0;

  constructor(conversation, onState) {
    this.conversation = conversation;
    this.#onState = onState;
    this.#path = `/api/conversations/${conversation.id}`;
  }

  get title() {
    return this.conversation.title ?? "New conversation";
  }

  get busy() {
    return this.#life !== null;
  }

  get locked() {
    return this.busy;
  }

  /** What is new, of this tab's own doing or of another's. */
  async open() {
    if (this.busy) return;
    const [conversation, messages] = [await ask("GET", this.#path), await this.#messages()];
    if (this.busy) return;
    this.conversation = conversation;
    if (signature(messages) !== signature(this.#turns.flatMap(({ question, replies }) => [question, ...replies]))) this.#draw(messages);
    this.#goOn();
    this.#onState();
  }

  async #messages() {
    const messages = [];
    for (let cursor = ""; cursor !== null; ) {
      const page = await ask("GET", `${this.#path}/messages?limit=${PAGE}&cursor=${encodeURIComponent(cursor)}`);
      messages.push(...page.messages);
      cursor = page.nextCursor;
    }
    return messages;
  }

  #draw(messages) {
    this.#turns = turnsOf(messages);
    this.#first = this.#turns.length;
    this.transcript.clear();
    this.#older();
    this.transcript.toEnd();
  }

  #older() {
    if (this.#first <= 0) return false;
    const start = Math.max(0, this.#first - TURNS);
    const turns = this.#turns.slice(start, this.#first);
    this.#first = start;
    this.transcript.prepend(turns.flatMap((turn) => this.#drawn(turn)));
    return true;
  }

  #drawn(turn) {
    const question = turn.question ? [this.#question(turn)] : [];
    return turn.replies.length ? [...question, this.#answer(turn, turn.replies.length - 1)] : question;
  }

  /** A question whose reply this tab was reading before it was loaded anew is asked again; else somebody must want to. */
  #goOn() {
    const turn = this.#turns.at(-1);
    if (turn?.question && asking(this.conversation.id) === turn.question.id) return this.#reply(turn);
    keepAsking(this.conversation.id, "");
    if (!turn || turn.replies.length || (turn.waiting && !turn.waiting.elsewhere)) return;
    turn.waiting?.element.remove();
    turn.waiting = new Answer();
    turn.waiting.actions.append(button("Ask for a reply", () => this.#reply(turn)));
    this.transcript.append(turn.waiting.element);
  }

  /** Another tab reads a reply here. */
  async isAnsweredElsewhere() {
    await this.open();
    const waiting = this.#turns.at(-1)?.waiting;
    if (!waiting || this.busy) return;
    waiting.elsewhere = true;
    waiting.actions.replaceChildren();
    waiting.status("Being answered in another tab…");
  }

  async send(content) {
    const life = this.#begin();
    const turn = { question: null, replies: [] };
    const shown = new Question(content).element;
    this.transcript.append(shown);
    this.transcript.toEnd();
    try {
      turn.question = await ask("POST", `${this.#path}/messages`, { content });
      shown.replaceWith(this.#question(turn));
      this.#turns.push(turn);
      this.#onState(true);
    } catch (failure) {
      this.#end(life);
      return this.#unsent(failure, shown, content);
    }
    await this.#reply(turn, "", life);
  }

  #unsent(failure, shown, content) {
    const answer = new Answer();
    this.transcript.append(answer.element);
    answer.fail(failure.message, async () => {
      shown.remove();
      answer.element.remove();
      if (await this.#arrived(content)) return this.open();
      this.send(content);
    });
  }

  /** Whether a message whose sending broke off is there all the same. */
  async #arrived(content) {
    const last = (await this.#messages().catch(() => [])).at(-1);
    return last?.role === "user" && last.content === content && last.id !== this.#turns.at(-1)?.question?.id;
  }

  stop() {
    this.#life?.abort();
  }

  async #reply(turn, regenerate = "", life = this.#begin()) {
    const answer = new Answer();
    turn.waiting?.element.remove();
    turn.waiting = null;
    if (turn.element) turn.element.hidden = true; // Of several replies to one question the last is shown.
    answer.status("…");
    this.transcript.append(answer.element);
    this.transcript.toEnd();
    keepAsking(this.conversation.id, turn.question.id);
    tell({ changed: this.conversation.id, answering: true });
    try {
      await this.#read(turn, regenerate, answer, life.signal);
    } catch (problem) {
      this.#broke(turn, answer, problem, life.signal.aborted);
    }
    keepAsking(this.conversation.id, "");
    this.#end(life);
    tell({ changed: this.conversation.id });
  }

  async #read(turn, regenerate, answer, signal) {
    const query = new URLSearchParams({ messageId: turn.question.id, regenerate });
    const messageId = await reply(`${this.#path}/stream?${query}`, {
      signal,
      onToken: (text) => answer.write(text),
      onBusy: () => answer.status("Another reply in this conversation is being written…"),
      onAgain: () => {
        answer.restart();
        answer.status("…");
        answer.note("The connection was lost. The reply is asked for again…");
      },
    });
    if (!answer.line.hidden) answer.note("Asked for again after a break in the connection.");
    if (!messageId) return this.#draw(await this.#messages());
    answer.end();
    turn.replies.push({ id: messageId, role: "assistant", content: answer.said, editedContent: null });
    this.#equip(turn, turn.replies.length - 1, answer);
    turn.element?.remove();
    turn.element = answer.element;
    answer.tell();
  }

  #broke(turn, answer, problem, stopped) {
    const again = () => this.#reply(turn, turn.replies.length ? anyText() : "");
    turn.waiting = answer;
    if (turn.element) turn.element.hidden = false;
    answer.note("");
    if (!stopped) return answer.fail(problem instanceof Failure ? problem.message : "Something went wrong.", again);
    answer.end();
    answer.note("Stopped, and not kept.");
    answer.actions.append(button("Try again", again));
  }

  #begin() {
    this.#life = new AbortController();
    this.#onState();
    return this.#life;
  }

  #end(life) {
    if (this.#life === life) this.#life = null;
    this.#onState();
  }

  #saved = async (message, content) => {
    Object.assign(message, await ask("PUT", `${this.#path}/messages/${message.id}`, { content }));
    tell({ changed: this.conversation.id });
  };

  #question(turn) {
    const view = new Question(effective(turn.question));
    const isLast = () => turn === this.#turns.at(-1) && !this.busy;
    addEditing(turn.question, view, this.#saved, () => (isLast() ? () => isLast() && this.#again(turn) : null));
    return view.element;
  }

  #answer(turn, index) {
    const view = new Answer();
    view.end(effective(turn.replies[index]));
    this.#equip(turn, index, view);
    turn.element = view.element;
    return view.element;
  }

  #equip(turn, index, view) {
    const { length } = turn.replies;
    addEditing(turn.replies[index], view, this.#saved, () => null);
    view.actions.append(button("Regenerate", () => this.busy || this.#again(turn), { class: "again" }));
    if (length < 2) return;
    const to = (other, label, sign) =>
      button(sign, () => this.#exchange(turn, other), { "aria-label": label, disabled: !turn.replies[other] });
    const place = make("span", {}, `${index + 1} of ${length}`);
    view.actions.append(to(index - 1, "Reply before", "‹"), place, to(index + 1, "Reply after", "›"));
  }

  #exchange(turn, index) {
    const before = turn.element;
    before.replaceWith(this.#answer(turn, index));
    turn.element.querySelector(".actions button:not(:disabled)").focus();
  }

  /** A further reply, to what the question is by now. */
  #again(turn) {
    this.#reply(turn, anyText());
  }
}
