// Running replies, for reloads and other tabs: the server lists neither their questions nor the conversations they belong to.
// Without storage they are in the memory of the open tabs.

import { broadcast, store, subscribe } from "./store.js";

const KEY = "chat.running";
const MAX_ENTRIES = 20;
const MAX_AGE = 600_000; // Milliseconds, as the server's ANSWER_MAX_SECONDS: older replies have ended.

/** The value remembered for `id`, of a direct message or a conversation; undefined if there is none. */
export function running(id) {
  const { value, at = 0 } = readEntries()[id] ?? {};
  return Date.now() - at < MAX_AGE ? value : undefined;
}

/** `chat`: the conversation's id, "direct", or "" if other tabs need not refresh. */
export function remember(chat, id, value) {
  save(id, value);
  broadcast({ chat, running: { id, value } });
}

export function forget(chat, id) {
  remember(chat, id, undefined);
}

subscribe(({ running: entry }) => entry && save(entry.id, entry.value));

function save(id, value) {
  const others = Object.entries(readEntries()).filter(([other]) => other !== id);
  const remaining = value === undefined ? others : [...others, [id, { value, at: Date.now() }]];
  store.set(KEY, Object.fromEntries(remaining.slice(-MAX_ENTRIES)));
}

function readEntries() {
  return store.get(KEY) ?? {};
}
