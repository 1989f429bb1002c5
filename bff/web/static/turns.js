// A turn is a question and its replies.

/**
 * @typedef {{id?: string, content: string, editedContent?: string | null, [more: string]: any}} Message
 * @typedef {object} Turn
 * @property {Message | null} question Null if unknown.
 * @property {Message[]} replies The last one is shown.
 * @property {object} [body] Other fields of the request, for a voice message.
 * @property {string} [regenerate] Key of a further reply to the same question.
 * @property {string} [messageId] Id of the direct chat's reply to follow.
 */

/** @returns {Turn} */
export function newTurn(question, more) {
  return { question, replies: [], ...more };
}

/** Groups messages into turns: the messages between two questions are replies to the first. */
export function turnsOf(messages) {
  const turns = [];
  for (const message of messages) {
    const isQuestion = message.role === "user";
    if (isQuestion || !turns.length) turns.push(newTurn(isQuestion ? message : null));
    if (!isQuestion) turns.at(-1).replies.push(message);
  }
  return turns;
}

/** A string that changes when ids or texts change. */
export function signature(turns) {
  const messages = turns.flatMap(({ question, replies }) => [question, ...replies]).filter(Boolean);
  return JSON.stringify(messages.map(({ id, content, editedContent }) => [id, content, editedContent]));
}

/** A random key. `crypto.randomUUID` is missing on pages loaded over plain http. */
export function randomKey() {
  return crypto.getRandomValues(new Uint32Array(4)).join("-");
}
