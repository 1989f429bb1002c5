// Direct chat as a ChatView source: messages in the user's queue.

import { fetchJSON } from "./api.js";
import { ROOT } from "./root.js";
import { forget, remember, running } from "./running.js";
import { streamChat } from "./sse.js";
import { broadcast } from "./store.js";
import { newTurn } from "./turns.js";

const PAGE = 20;
const SPOKEN = "Voice message";

export class DirectChat {
  id = "direct";
  title = "Direct chat";
  placeholder = "Say something, or /help";
  voice = true;
  queues = true;
  continues = false; // Whether replies continue without a reader is a setting of the server.
  conversation = null;
  #known = new Set(); // Message ids of replies that have been followed.
  #firstShown = 0; // Index in the history of the first turn that is shown.
  #total = 0;

  async load() {
    const [history, active] = await this.#historyAndActive();
    const unknown = active.filter((id) => !this.#known.has(id)).map(turnFollowing);
    if (history.total_count === this.#total) return { turns: null, running: unknown };
    const turns = history.entries.reverse().map(turnOf);
    return { turns, running: unknown, accept: () => this.#accept(history, turns.length) };
  }

  #accept({ total_count }, shownCount) {
    this.#total = total_count;
    this.#firstShown = total_count - shownCount;
  }

  /** Retries if a reply starts or ends in between: it must not be missing from both. */
  async #historyAndActive() {
    for (let tries = 3; ; tries--) {
      const before = await activeIds();
      const history = await fetchJSON("GET", `/api/chat/history?order=newest&limit=${PAGE}`);
      const after = await activeIds();
      if (!tries || before.join() === after.join()) return [history, after];
    }
  }

  async older() {
    if (this.#firstShown <= 0) return [];
    const start = Math.max(0, this.#firstShown - PAGE);
    const { entries } = await fetchJSON("GET", `/api/chat/history?offset=${start}&limit=${this.#firstShown - start}`);
    this.#firstShown = start;
    return entries.map(turnOf);
  }

  voiceTurn(body) {
    return newTurn({ content: SPOKEN }, { body });
  }

  async send() {} // `stream` posts the message.

  stream({ question, body, messageId, clientMessageId }, options) {
    const message = body ? "" : question?.content;
    return streamChat({ url: `${ROOT}/api/chat/stream`, message, body, messageId, clientMessageId, ...options });
  }

  opened({ question }, messageId) {
    if (!messageId || this.#known.has(messageId)) return;
    this.#known.add(messageId);
    if (question) remember(this.id, messageId, question.content);
    else broadcast({ chat: this.id });
  }

  /** What to show at the end, and which retry to offer. */
  ended(turn, last) {
    if (last.resume?.messageId) forget("", last.resume.messageId);
    if (last.type === "stopped") return { text: textOf(last), note: "Stopped.", retry: null };
    if (last.type === "complete") {
      this.#total++;
      return { text: textOf(last), reply: { ...last.response, content: textOf(last) } };
    }
    if (last.code === "connection_lost") return { retry: "resume" };
    return { retry: turn.body || (turn.question && turn.question.content !== SPOKEN) ? "send" : null };
  }
}

function textOf({ response }) {
  return response.responses.join("\n\n");
}

async function activeIds() {
  const { messages } = await fetchJSON("GET", "/api/chat/active");
  return messages.map(({ message_id }) => message_id);
}

function turnFollowing(messageId) {
  const content = running(messageId);
  return newTurn(content ? { content } : null, { messageId });
}

function turnOf({ user_message, assistant_response, ...more }) {
  return { ...newTurn({ content: user_message }), replies: [{ ...more, content: assistant_response }] };
}
