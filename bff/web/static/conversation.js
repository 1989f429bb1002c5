// A conversation as a ChatView source. It is created with its first message.

import { fetchJSON } from "./api.js";
import { ROOT } from "./root.js";
import { forget, remember, running } from "./running.js";
import { followReply } from "./sse.js";
import { broadcast } from "./store.js";
import { Tree } from "./tree.js";
import { turnsOf } from "./turns.js";

const PAGE = 100; // Messages per request.
const MAX_DRAWN = 30; // Turns drawn at once; earlier ones are drawn on scrolling.

export class Conversation {
  placeholder = "Say something";
  voice = false;
  queues = false;
  continues = true; // Replies are finished and stored without a reader.
  draft = {}; // Fields to create the conversation with.
  #onCreate;
  #earlier = []; // Turns not drawn yet.
  #tree = new Tree();

  /** @param {object | null} conversation From the server; null if it is not created yet. */
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
    const tree = new Tree(messages, conversation.currentMessageId);
    const loaded = turnsOf(tree.branch());
    const sent = turns.filter(({ question }) => !question || question.id);
    const hasChanged = tree.signature !== this.#tree.signature;
    const last = (hasChanged ? loaded : sent).at(-1);
    const accept = () => {
      this.conversation = conversation;
      if (!hasChanged) return;
      this.#tree = tree;
      this.#earlier = loaded.slice(0, -MAX_DRAWN);
    };
    return { turns: hasChanged ? loaded.slice(-MAX_DRAWN) : null, running: this.#running(last, tree), accept };
  }

  /** The last turn in a list, if this browser knows that its reply is running. */
  #running(turn, tree) {
    const run = running(this.id);
    if (!run || run.messageId !== turn?.question?.id || tree.repliesTo(run.messageId).length > run.replies) return [];
    turn.regenerate = run.regenerate;
    turn.remembered = true;
    return [turn];
  }

  /** Those of all branches. */
  async #messages() {
    const messages = [];
    for (let cursor = ""; cursor !== null; ) {
      const query = new URLSearchParams({ branches: "all", limit: PAGE, cursor });
      const page = await fetchJSON("GET", `${this.#path}/messages?${query}`);
      messages.push(...page.messages);
      cursor = page.nextCursor;
    }
    return messages;
  }

  async older() {
    return this.#earlier.splice(-MAX_DRAWN);
  }

  /** Posts the question unless the server has it. */
  async send(turn) {
    if (turn.question.id) return;
    if (!this.conversation) await this.#create();
    const { content, parentId = this.#tree.current } = turn.question;
    const stored = turn.sent && (await this.#findStored(content, parentId)); // A request that failed may have arrived.
    turn.sent = true;
    turn.question = stored || (await fetchJSON("POST", `${this.#path}/messages`, { content, parentId }));
    this.#tree.add(turn.question);
  }

  async #create() {
    this.conversation = await fetchJSON("POST", "/api/conversations", this.draft);
    this.#onCreate(this.conversation);
  }

  async #findStored(content, parentId) {
    const isOurs = (message) => message.content === content && message.parentId === parentId && !this.#tree.has(message.id);
    return (await this.#messages()).findLast((message) => message.role === "user" && isOurs(message));
  }

  stream({ question, regenerate = "" }, options) {
    const query = new URLSearchParams({ messageId: question.id, regenerate, on_disconnect: "continue" });
    return followReply({ url: `${ROOT}${this.#path}/stream?${query}`, ...options });
  }

  opened(turn) {
    if (turn.remembered) return;
    turn.remembered = true;
    const { question, regenerate = "" } = turn;
    const replies = this.#tree.repliesTo(question.id).length;
    remember(this.id, this.id, { messageId: question.id, regenerate, replies });
  }

  /** What to show at the end, and which retry to offer. */
  ended(turn, last, text) {
    turn.remembered = false;
    if (this.id) forget(this.id, this.id);
    if (last.type === "error") return { retry: "request" };
    if (last.messageId) {
      const reply = newReply(last, turn.question.id, text);
      this.#tree.add(reply);
      return { reply, note: last.type === "stopped" ? "Stopped." : undefined };
    }
    return last.type === "complete" ? { reload: true } : { note: "Stopped, and not kept.", retry: "request" };
  }

  async edit(message, content) {
    Object.assign(message, await fetchJSON("PUT", `${this.#path}/messages/${message.id}`, { content }));
    broadcast({ chat: this.id });
  }

  versions(message) {
    return this.#tree.versions(message);
  }

  /** Makes the branch with a message the current one. */
  async switchTo(id) {
    this.conversation = await fetchJSON("PATCH", this.#path, { currentMessageId: id });
    broadcast({ chat: this.id });
  }
}

function newReply({ messageId, truncated }, parentId, content) {
  return { id: messageId, parentId, role: "assistant", content, editedContent: null, truncated };
}
