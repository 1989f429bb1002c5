// Direct chat, as a ChatView's source: the user's queue with the engine behind the broker.

import { broadcast, fetchJSON } from "./api.js";
import { forget, remember, running } from "./running.js";
import { streamChat } from "./sse.js";
import { newTurn } from "./turns.js";

const PAGE = 20;
const SPOKEN = "Voice message";

export class DirectChat {
  id = "direct";
  title = "Direct chat";
  placeholder = "Say something, or /help";
  voice = true;
  queues = true;
  continues = false; // Whether its answers outlive their readers is the server's setting, so they are followed while hidden.
  conversation = null;
  #known = new Set(); // Message ids of answers that were followed.
  #first = 0; // Of all turns in the history, the first that is shown.
  #total = 0;

  async load() {
    const [history, active] = await this.#historyAndActive();
    const unknown = active.filter((id) => !this.#known.has(id)).map(turnFollowing);
    if (history.total_count === this.#total) return { turns: null, running: unknown };
    const turns = history.entries.reverse().map(turnOf);
    return { turns, running: unknown, accept: () => this.#accept(history, turns.length) };
  }

  #accept({ total_count }, shown) {
    this.#total = total_count;
    this.#first = total_count - shown;
  }

  /** An answer that ends between the two requests must not be missing from both. */
  async #historyAndActive() {
    for (let tries = 3; ; tries--) {
      const before = await activeIds();
      const history = await fetchJSON("GET", `/api/chat/history?order=newest&limit=${PAGE}`);
      const after = await activeIds();
      if (!tries || before.join() === after.join()) return [history, after];
    }
  }

  async older() {
    if (this.#first <= 0) return [];
    const start = Math.max(0, this.#first - PAGE);
    const { entries } = await fetchJSON("GET", `/api/chat/history?offset=${start}&limit=${this.#first - start}`);
    this.#first = start;
    return entries.map(turnOf);
  }

  voiceTurn(body) {
    return newTurn({ content: SPOKEN }, { body });
  }

  async send() {} // The message is posted with the request for its answer.

  stream({ question, body, messageId, clientMessageId }, options) {
    return streamChat({ message: body ? "" : question?.content, body, messageId, clientMessageId, ...options });
  }

  opened({ question }, messageId) {
    if (!messageId || this.#known.has(messageId)) return;
    this.#known.add(messageId);
    if (question) remember(this.id, messageId, question.content);
    else broadcast({ chat: this.id });
  }

  /** What is shown of the end, and what may be asked again. */
  ended(turn, last) {
    if (last.resume?.messageId) forget("", last.resume.messageId);
    if (last.type === "stopped") return { text: textOf(last), note: "Stopped.", again: null };
    if (last.type === "complete") {
      this.#total++;
      return { text: textOf(last), reply: { ...last.response, content: textOf(last) } };
    }
    if (last.code === "connection_lost") return { again: "resume" };
    return { again: turn.body || (turn.question && turn.question.content !== SPOKEN) ? "send" : null };
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
