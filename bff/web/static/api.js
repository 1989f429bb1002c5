// Requests to the server, and messages between this browser's tabs.

export const LOST = { error: "The connection was lost.", code: "connection_lost" };
const UNEXPECTED = { error: "The server's answer makes no sense.", code: "unexpected_response" };

/** A failed request. `message` is shown to the user. */
export class Failure extends Error {
  constructor({ error, code }) {
    super(error);
    this.code = code;
  }
}

/** Returns the response's JSON, or null for a 204. Throws a Failure. */
export async function fetchJSON(method, path, content) {
  const headers = content ? { "Content-Type": "application/json" } : undefined;
  const response = await fetch(path, { method, headers, body: content && JSON.stringify(content) }).catch(() => null);
  if (!response) throw new Failure(LOST);
  if (response.status === 204) return null;
  const parsed = await response.json().catch(() => null);
  if (response.ok && parsed) return parsed;
  throw new Failure(typeof parsed?.error === "string" ? parsed : UNEXPECTED);
}

/** Imports a module on demand. Throws a Failure. */
export function load(path) {
  return import(path).catch(() => Promise.reject(new Failure(LOST)));
}

const channel = new BroadcastChannel("chat");

/** Sends a message to this browser's other tabs. */
export function broadcast(message) {
  channel.postMessage(message);
}

export function subscribe(onMessage) {
  channel.addEventListener("message", ({ data }) => onMessage(data));
}
