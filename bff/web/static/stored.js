// A conversation that is kept: said, edited, and replied to by an agent for as long as somebody reads.

import { Failure, ask, tell } from "./api.js";
import { button, make } from "./dom.js";
import { reply } from "./reply.js";
import { Answer, Question, Transcript } from "./transcript.js";

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
    const asking = this.#asking;
    if (turn?.question && asking === turn.question.id) return this.#reply(turn);
    this.#asking = "";
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
    this.#asking = turn.question.id;
    tell({ changed: this.conversation.id, answering: true });
    try {
      await this.#read(turn, regenerate, answer, life.signal);
    } catch (problem) {
      this.#broke(turn, answer, problem, life.signal.aborted);
    }
    this.#asking = "";
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

  #question(turn) {
    const view = new Question(effective(turn.question));
    this.#addEditing(turn.question, view, () => turn === this.#turns.at(-1) && (() => this.#again(turn)));
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
    this.#addEditing(turn.replies[index], view, () => false);
    view.actions.append(button("Regenerate", () => this.busy || this.#again(turn), { class: "again" }));
    if (length < 2) return;
    const to = (other, label, sign) =>
      button(sign, () => this.#turn(turn, other), { "aria-label": label, disabled: !turn.replies[other] });
    const place = make("span", {}, `${index + 1} of ${length}`);
    view.actions.append(to(index - 1, "Reply before", "‹"), place, to(index + 1, "Reply after", "›"));
  }

  #turn(turn, index) {
    const before = turn.element;
    before.replaceWith(this.#answer(turn, index));
    turn.element.querySelector(".actions button:not(:disabled)").focus();
  }

  /** A further reply, to what the question is by now. */
  #again(turn) {
    this.#reply(turn, anyText());
  }

  /** `andThen()` gives what may follow when a message was changed, or nothing. */
  #addEditing(message, view, andThen) {
    const original = button("Edited", () => {
      const pressed = original.getAttribute("aria-pressed") !== "true";
      original.setAttribute("aria-pressed", String(pressed));
      view.show(pressed ? message.content : effective(message));
    });
    const sync = () => {
      original.hidden = message.editedContent === null;
      original.title = "Show what it was before";
      original.setAttribute("aria-pressed", "false");
      view.show(effective(message));
    };
    original.hidden = message.editedContent === null;
    original.setAttribute("aria-pressed", "false");
    const edit = button("Edit", () => this.#edit(message, view, edit, andThen(), sync));
    view.actions.append(edit, original);
  }

  #edit(message, view, opener, next, sync) {
    const area = make("textarea", { "aria-label": "Message", rows: Math.min(12, effective(message).split("\n").length + 1) });
    area.value = effective(message);
    const close = () => {
      form.replaceWith(view.text);
      view.actions.hidden = false;
      opener.focus();
    };
    const save = async (then) => {
      if (!area.value.trim() || (then && this.busy)) return area.focus();
      try {
        Object.assign(message, await ask("PUT", `${this.#path}/messages/${message.id}`, { content: area.value }));
      } catch (failure) {
        return problem.replaceChildren(failure.message);
      }
      sync();
      close();
      tell({ changed: this.conversation.id });
      then?.();
    };
    const problem = make("p", { class: "problem", role: "alert" });
    const more = next ? [button("Save and ask again", () => save(next))] : [];
    const buttons = make("div", { class: "buttons" }, button("Save", () => save(), { class: "main" }), ...more, button("Cancel", close));
    const form = make("div", { class: "edit" }, area, problem, buttons);
    area.addEventListener("keydown", (event) => {
      if (event.key !== "Escape") return;
      event.preventDefault();
      close();
    });
    view.actions.hidden = true;
    view.text.replaceWith(form);
    area.focus();
  }

  /** The question whose reply this tab reads, as a reload finds it. */
  get #asking() {
    return sessionStorage.getItem(`chat.asking.${this.conversation.id}`) ?? "";
  }

  set #asking(messageId) {
    const key = `chat.asking.${this.conversation.id}`;
    if (messageId) sessionStorage.setItem(key, messageId);
    else sessionStorage.removeItem(key);
  }
}

/** What follows a question until the next one are replies to it. */
function turnsOf(messages) {
  const turns = [];
  for (const message of messages) {
    if (message.role === "user" || !turns.length) turns.push({ question: message.role === "user" ? message : null, replies: [] });
    if (message.role !== "user") turns.at(-1).replies.push(message);
  }
  return turns;
}

function signature(messages) {
  return JSON.stringify(messages.filter(Boolean).map(({ id, content, editedContent }) => [id, content, editedContent]));
}

function anyText() {
  return crypto.getRandomValues(new Uint32Array(4)).join("-");
}

function effective(message) {
  return message.editedContent ?? message.content;
}
