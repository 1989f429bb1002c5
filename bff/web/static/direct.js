// The direct chat: one queue with the assistant behind the broker. Its answers live on the server, whoever reads them.

import { ask, tell } from "./api.js";
import { button } from "./dom.js";
import { streamChat } from "./sse.js";
import { Answer, Question, Transcript } from "./transcript.js";

const PAGE = 20;
const SPOKEN = "Voice message";
const KEPT = "chat.questions"; // What was asked in the answers that still run, for reloads and other tabs: nobody else tells.
const KEPT_MOST = 20;

export class DirectChat {
  title = "Direct chat";
  voice = true;
  locked = false;
  transcript = new Transcript(() => this.#older());
  #onState;
  #running = new Set();
  #known = new Map(); // Message id → what follows it.
  #first = 0; // Of all turns that the history has, the first that is shown.
  #total = 0;
  #loading = null;

  constructor(onState) {
    this.#onState = onState;
  }

  get busy() {
    return this.#running.size > 0;
  }

  /** Everything that was said elsewhere, too; several who ask at once wait for the same. */
  open() {
    this.#loading ??= this.#open().finally(() => (this.#loading = null));
    return this.#loading;
  }

  async #open() {
    const [history, active] = await this.#look();
    const missed = history.total_count !== this.#total;
    if (missed && !this.busy) {
      this.transcript.clear();
      this.#total = history.total_count;
      this.#first = this.#total - history.entries.length;
      this.transcript.prepend(history.entries.reverse().flatMap(drawn));
    }
    if (![...this.#running].every((run) => run.messageId)) return; // One of ours that is not known by its id yet.
    for (const id of active) if (!this.#known.has(id)) this.follow(id, kept()[id]);
    this.transcript.fill();
  }

  /** History, and what runs besides: what ended while we asked for the one must not be missing from both. */
  async #look() {
    for (let left = 3; ; left--) {
      const before = await active();
      const history = await ask("GET", `/api/chat/history?order=newest&limit=${PAGE}`);
      const after = await active();
      if (!left || before.join() === after.join()) return [history, after];
    }
  }

  async #older() {
    if (this.#first <= 0) return false;
    const start = Math.max(0, this.#first - PAGE);
    const { entries } = await ask("GET", `/api/chat/history?offset=${start}&limit=${this.#first - start}`);
    this.#first = start;
    this.transcript.prepend(entries.flatMap(drawn));
    return true;
  }

  send(message) {
    this.#run({ message }, message);
  }

  sendVoice(body) {
    this.#run({ message: "", body }, SPOKEN);
  }

  /** An answer that runs on the server. */
  follow(messageId, question) {
    if (!this.#known.has(messageId)) this.#run({ messageId }, question);
  }

  /** The one that runs; the others are behind it. */
  stop() {
    const [first] = this.#running;
    first?.stop();
  }

  #run(options, question = "") {
    if (question) this.transcript.append(new Question(question).element);
    const answer = new Answer();
    answer.status("…");
    this.transcript.append(answer.element);
    const again = question && question !== SPOKEN && (() => this.send(question));
    const run = new Run(options, answer, question);
    run.known = (id) => this.#known.set(id, run);
    run.over = (last) => {
      this.#running.delete(run);
      if (last.type === "complete") this.#total++;
      else if (last.type === "error") answer.fail(last.error, again);
      this.#onState();
    };
    this.#running.add(run);
    if (options.messageId) run.known(options.messageId);
    this.transcript.toEnd();
    this.#onState();
  }
}

/** One answer on its way into the page. */
class Run {
  known = (_id) => {};
  over = (_last) => {};
  #answer;
  #question;
  #broken = "";
  #stop;

  constructor(options, answer, question) {
    this.#answer = answer;
    this.#question = question;
    this.#stop = button("Take back", () => this.stop());
    this.chat = streamChat({
      ...options,
      onEvent: (event) => this.#hear(event),
      onConnection: (connection) => this.#line(connection),
    });
    this.chat.done.then((last) => this.#end(last));
  }

  get messageId() {
    return this.chat.messageId;
  }

  stop() {
    this.#answer.status("Stopping…");
    this.chat.stop();
  }

  #hear(event) {
    this.#mended(event);
    if (event.type === "status") this.#status(event);
    else if (event.type === "tool_use") this.#answer.status(`Using ${event.tool ?? "a tool"}…`);
    else if (event.type === "progress") this.#answer.write(event.text);
  }

  #status({ message, position = 0 }) {
    this.#answer.status(position ? `Waiting, number ${position} in the queue` : message);
    if (position) this.#answer.state.append(" ", this.#stop);
  }

  #end(last) {
    keep(this.messageId, "");
    const { responses = [], ...more } = last.response ?? {};
    this.#answer.end(last.type === "error" ? undefined : responses.join("\n\n"));
    this.#answer.speak(more);
    if (last.type === "complete") this.#answer.tell();
    if (last.type === "stopped") this.#answer.note("Stopped.");
    this.over(last);
  }

  #line({ state, failure }) {
    if (state === "open") this.#opened();
    if (state !== "waiting") return;
    this.#broken = failure.code;
    this.#answer.note(`${failure.error} It goes on by itself…`);
  }

  #opened() {
    if (!this.messageId) return;
    if (this.#question) keep(this.messageId, this.#question);
    this.known(this.messageId);
    tell({ said: this.messageId, question: this.#question });
  }

  #mended({ code }) {
    if (!this.#broken) return;
    const over = this.#broken !== "too_many_requests" && code !== "connection_lost";
    this.#answer.note(over ? "Continued after a break in the connection." : "");
    this.#broken = "";
  }
}

async function active() {
  const { messages } = await ask("GET", "/api/chat/active");
  return messages.map((message) => message.message_id);
}

function drawn(entry) {
  const answer = new Answer();
  answer.end(entry.assistant_response);
  answer.speak(entry);
  return [new Question(entry.user_message).element, answer.element];
}

function kept() {
  return JSON.parse(localStorage.getItem(KEPT) ?? "{}");
}

/** An empty one is forgotten. */
function keep(id, question) {
  const others = Object.entries(kept()).filter(([one]) => one !== id);
  const all = question ? [...others, [id, question]] : others;
  localStorage.setItem(KEPT, JSON.stringify(Object.fromEntries(all.slice(-KEPT_MOST))));
}
