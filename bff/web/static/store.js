// Optional features of browsers, each of which may be missing, denied or broken: the page works without them.

import { ROOT } from "./root.js";

/** The result of `use()`; undefined if it throws. */
export function attempt(use) {
  try {
    return use();
  } catch {
    return undefined;
  }
}

/** A key-value store of this server: `localStorage`, or this page's memory once that is denied, full or damaged. */
class Store {
  #storage = attempt(() => localStorage) ?? null;
  #memory = new Map();

  /** Returns a JSON value; undefined if there is none. */
  get(key) {
    const text = attempt(() => this.#storage?.getItem(ROOT + key));
    return attempt(() => JSON.parse(text ?? undefined)) ?? this.#memory.get(key);
  }

  set(key, value) {
    this.#memory.set(key, value);
    const isStored = attempt(() => (this.#storage.setItem(ROOT + key, JSON.stringify(value)), true));
    if (!isStored) this.#storage = null; // Otherwise an old value would be read again.
  }
}

export const store = new Store();

const channel = attempt(() => new BroadcastChannel(`chat${ROOT}`));

/** Sends a message to this browser's other tabs. */
export function broadcast(message) {
  attempt(() => channel?.postMessage(message));
}

export function subscribe(onMessage) {
  channel?.addEventListener("message", ({ data }) => onMessage(data));
}
