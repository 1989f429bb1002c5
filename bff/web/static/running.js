// Replies that are being written, for reloads and other tabs: the server lists neither their questions nor which of them a
// conversation has. Kept in `localStorage`; where that is denied, in this tab's and the other open tabs' memory.

import { broadcast, subscribe } from "./api.js";

const KEY = "chat.running";
const MAX_ENTRIES = 20;
const MAX_AGE = 600_000; // Milliseconds; the server's ANSWER_MAX_SECONDS. Older ones have ended while nobody followed them.
let entries = {};

/** What was remembered under `id`, a direct message's or a conversation's. */
export function running(id) {
  const { value, at = 0 } = all()[id] ?? {};
  return Date.now() - at < MAX_AGE ? value : undefined;
}

/** `chat`: the conversation's id, "direct", or "" where other tabs need not look at it. */
export function remember(chat, id, value) {
  save(id, value);
  broadcast({ chat, running: { id, value } });
}

export function forget(chat, id) {
  remember(chat, id, undefined);
}

subscribe(({ running: entry }) => entry && save(entry.id, entry.value));

function save(id, value) {
  const others = Object.entries(all()).filter(([other]) => other !== id);
  const kept = value === undefined ? others : [...others, [id, { value, at: Date.now() }]];
  entries = Object.fromEntries(kept.slice(-MAX_ENTRIES));
  try {
    localStorage.setItem(KEY, JSON.stringify(entries));
  } catch {
    // Denied, or full.
  }
}

function all() {
  try {
    return JSON.parse(localStorage.getItem(KEY)) ?? {};
  } catch {
    return entries;
  }
}
