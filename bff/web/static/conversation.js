// A conversation, as a ChatView's source. It is created with its first message.

import { broadcast, fetchJSON } from "./api.js";
import { forget, remember, running } from "./running.js";
import { followReply } from "./sse.js";
import { signature, turnsOf } from "./turns.js";

const PAGE = 100; // Messages a request.
const MAX_DRAWN = 30; // Turns at once; earlier ones as one scrolls to them.

export class Conversation {
  placeholder = "Say something";
  voice = false;
  queues = false;
  continues = true; // Its replies are finished and kept without a reader.
  draft = {}; // What it is created with.
  #onCreate;
  #earlier = []; // Turns that are not drawn yet.
  #lastQuestion = "";

  /** @param {object | null} conversation As the server has it; null for one that is to be created. */
  constructor(conversation, onCreate) {
    this.conversation = conversation;
    this.#onCreate = onCreate;
  }

  get id() {
    return this.conversation?.id ?? "";
  }

  get title() {
    return this.conversation?.title ?? "New conversation";
  }

  get #path() {
    return `/api/conversations/${this.id}`;
  }

  async load(turns) {
    if (!this.id) return { turns: null, running: [] };
    const [conversation, messages] = await Promise.all([fetchJSON("GET", this.#path), this.#messages()]);
    const loaded = turnsOf(messages);
    const sent = turns.filter(({ question }) => !question || question.id);
    const changed = signature(loaded) !== signature([...this.#earlier, ...sent]);
    const last = (changed ? loaded : sent).at(-1);
    const accept = () => {
      this.conversation = conversation;
      if (changed) this.#earlier = loaded.slice(0, -MAX_DRAWN);
      this.#lastQuestion = last?.question?.id ?? "";
    };
    return { turns: changed ? loaded.slice(-MAX_DRAWN) : null, running: this.#running(last), accept };
  }

  /** The last turn, where its reply is being written as far as this browser knows. */
  #running(turn) {
    const run = running(this.id);
    if (!run || run.messageId !== turn?.question?.id || turn.replies.length > run.replies) return [];
    turn.regenerate = run.regenerate;
    turn.remembered = true;
    return [turn];
  }

  async #messages() {
    const messages = [];
    for (let cursor = ""; cursor !== null; ) {
      const query = new URLSearchParams({ limit: PAGE, cursor });
      const page = await fetchJSON("GET", `${this.#path}/messages?${query}`);
      messages.push(...page.messages);
      cursor = page.nextCursor;
    }
    return messages;
  }

  async older() {
    return this.#earlier.splice(-MAX_DRAWN);
  }

  /** Posts a question that the server does not have yet. */
  async send(turn) {
    if (turn.question.id) return;
    if (!this.conversation) await this.#create();
    const { content } = turn.question;
    const arrived = turn.sent && (await this.#arrived(content)); // Its sending broke off: it may be there all the same.
    turn.sent = true;
    turn.question = arrived || (await fetchJSON("POST", `${this.#path}/messages`, { content }));
    this.#lastQuestion = turn.question.id;
  }

  async #create() {
    this.conversation = await fetchJSON("POST", "/api/conversations", this.draft);
    this.#onCreate(this.conversation);
  }

  async #arrived(content) {
    const last = (await this.#messages()).at(-1);
    return last?.role === "user" && last.content === content && last.id !== this.#lastQuestion ? last : null;
  }

  stream({ question, regenerate = "" }, options) {
    const query = new URLSearchParams({ messageId: question.id, regenerate, on_disconnect: "continue" });
    return followReply({ url: `${this.#path}/stream?${query}`, ...options });
  }

  opened(turn) {
    if (turn.remembered) return;
    turn.remembered = true;
    const { question, regenerate = "", replies } = turn;
    remember(this.id, this.id, { messageId: question.id, regenerate, replies: replies.length });
  }

  /** What is shown of the end, and what may be asked again. */
  ended(turn, last, text) {
    turn.remembered = false;
    if (this.id) forget(this.id, this.id);
    if (last.type === "error") return { again: "ask" };
    if (last.messageId) {
      const reply = { id: last.messageId, role: "assistant", content: text, editedContent: null };
      return { reply, note: last.type === "stopped" ? "Stopped." : undefined };
    }
    return last.type === "complete" ? { reload: true } : { note: "Stopped, and not kept.", again: "ask" };
  }

  async edit(message, content) {
    Object.assign(message, await fetchJSON("PUT", `${this.#path}/messages/${message.id}`, { content }));
    broadcast({ chat: this.id });
  }
}
