// Turns: a question and its replies.

/**
 * @typedef {{id?: string, content: string, editedContent?: string | null, [more: string]: any}} Message
 * @typedef {object} Turn
 * @property {Message | null} question Null where nobody knows it.
 * @property {Message[]} replies The last one is shown.
 * @property {object} [body] More of the request: a voice message.
 * @property {string} [regenerate] Asks for a further reply under this key.
 * @property {string} [messageId] The answer's, where one of direct chat is being followed.
 */

/** @returns {Turn} */
export function newTurn(question, more) {
  return { question, replies: [], ...more };
}

/** The messages up to the next question are replies to it. */
export function turnsOf(messages) {
  const turns = [];
  for (const message of messages) {
    const isQuestion = message.role === "user";
    if (isQuestion || !turns.length) turns.push(newTurn(isQuestion ? message : null));
    if (!isQuestion) turns.at(-1).replies.push(message);
  }
  return turns;
}

/** Equal for equal messages. */
export function signature(turns) {
  const messages = turns.flatMap(({ question, replies }) => [question, ...replies]).filter(Boolean);
  return JSON.stringify(messages.map(({ id, content, editedContent }) => [id, content, editedContent]));
}

/** Random: names a further reply. `crypto.randomUUID` is missing where the page came over plain http. */
export function randomKey() {
  return crypto.getRandomValues(new Uint32Array(4)).join("-");
}
