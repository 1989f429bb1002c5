// Questions and their replies, out of a conversation's messages.

/** What follows a question until the next one are replies to it. */
export function turnsOf(messages) {
  const turns = [];
  for (const message of messages) {
    if (message.role === "user" || !turns.length) turns.push({ question: message.role === "user" ? message : null, replies: [] });
    if (message.role !== "user") turns.at(-1).replies.push(message);
  }
  return turns;
}

/** The same for the same messages. */
export function signature(messages) {
  return JSON.stringify(messages.filter(Boolean).map(({ id, content, editedContent }) => [id, content, editedContent]));
}

export function anyText() {
  return crypto.getRandomValues(new Uint32Array(4)).join("-");
}

/** The question whose reply this tab reads, as a reload finds it. */
export function asking(conversationId) {
  return sessionStorage.getItem(`chat.asking.${conversationId}`);
}

export function keepAsking(conversationId, messageId) {
  const key = `chat.asking.${conversationId}`;
  if (messageId) sessionStorage.setItem(key, messageId);
  else sessionStorage.removeItem(key);
}
