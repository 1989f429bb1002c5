// The messages of a conversation as a tree: its branches, and the versions of a message.

export class Tree {
  #messages = new Map(); // By id, in the order in which they were stored.

  /** `current`: the id of the last message of the branch to show. */
  constructor(messages = [], current = null) {
    for (const message of messages) this.#messages.set(message.id, message);
    this.current = this.has(current) ? current : (messages.at(-1)?.id ?? null);
  }

  has(id) {
    return this.#messages.has(id);
  }

  /** Adds a message to the end of a branch, which is shown from then on. */
  add(message) {
    this.#messages.set(message.id, message);
    this.current = message.id;
  }

  /** The messages of the current branch, oldest first. */
  branch() {
    const messages = [];
    for (let id = this.current; this.has(id); id = messages.at(-1).parentId) messages.push(this.#messages.get(id));
    return messages.reverse();
  }

  /** The ids of the versions of a message, itself included: edited questions, or replies to the same question. */
  versions({ parentId, role }) {
    return this.#children(parentId, role);
  }

  repliesTo(questionId) {
    return this.#children(questionId, "assistant");
  }

  #children(parentId, role) {
    const children = [...this.#messages.values()].filter((message) => message.parentId === parentId && message.role === role);
    return children.map(({ id }) => id);
  }

  /** A string that changes when messages or the current branch change. */
  get signature() {
    const messages = [...this.#messages.values()];
    return JSON.stringify([this.current, messages.map((m) => [m.id, m.parentId, m.content, m.editedContent])]);
  }
}
