// A turn is a question and its replies.

/**
 * @typedef {{id?: string, content: string, editedContent?: string | null, [more: string]: any}} Message
 * @typedef {object} Turn
 * @property {Message | null} question Null if unknown.
 * @property {Message[]} replies Those on the branch that is shown.
 * @property {object} [body] Other fields of the request, for a voice message.
 * @property {string} [regenerate] Key of a further reply to the same question.
 * @property {string} [messageId] Id of the direct chat's reply to follow.
 */

/**
 * @typedef {object} Source The chat's storage: a Conversation or DirectChat.
 * @property {boolean} queues Whether messages can be sent while a reply runs.
 * @property {boolean} continues Whether replies continue without a reader.
 * @property {(turns: Turn[]) => Promise<{turns: Turn[] | null, running: Turn[], accept?: () => void}>} load The newest turns,
 *   or null if they are the given ones; turns whose replies are running; `accept` is called if they are shown.
 * @property {() => Promise<Turn[]>} older
 * @property {(turn: Turn) => Promise<void>} send Throws a Failure.
 * @property {(turn: Turn, options: object) => object} stream Returns the reply of sse.js.
 * @property {(turn: Turn, messageId: string) => void} opened
 * @property {(message: Message) => string[]} [versions] The ids of the versions of a message, itself included.
 * @property {(id: string) => Promise<void>} [switchTo] Shows another version. Throws a Failure.
 * @property {(turn: Turn, last: object, text: string) => {text?: string, reply?: object, note?: string,
 *   retry?: "request" | "resume" | "send" | null, reload?: boolean}} ended What to show at the end, and which retry to offer.
 */

/** @returns {Turn} */
export function newTurn(question, more) {
  return { question, replies: [], ...more };
}

/**
 * Groups the messages of a branch into turns. A question has one reply; of conversations that were stored before branches, the
 * messages up to the next question are its replies.
 */
export function turnsOf(messages) {
  const turns = [];
  for (const message of messages) {
    const isQuestion = message.role === "user";
    if (isQuestion || !turns.length) turns.push(newTurn(isQuestion ? message : null));
    if (!isQuestion) turns.at(-1).replies.push(message);
  }
  return turns;
}

/** A random key. `crypto.randomUUID` is missing on pages loaded over plain http. */
export function randomKey() {
  return crypto.getRandomValues(new Uint32Array(4)).join("-");
}
