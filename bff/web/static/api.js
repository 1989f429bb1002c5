// What the page asks the server, and other tabs tell.

export const LOST = { error: "The connection was lost.", code: "connection_lost" };
const UNEXPECTED = { error: "The server's answer makes no sense.", code: "unexpected_response" };

/** Its message is a sentence for the user. */
export class Failure extends Error {
  constructor({ error, code }) {
    super(error);
    this.code = code;
  }
}

/** What is answered; null for a 204. Throws a Failure. */
export async function ask(method, path, content) {
  const headers = content ? { "Content-Type": "application/json" } : undefined;
  const response = await fetch(path, { method, headers, body: content && JSON.stringify(content) }).catch(() => null);
  if (!response) throw new Failure(LOST);
  return response.status === 204 ? null : understood(response);
}

export async function understood(response) {
  const said = await response.json().catch(() => null);
  if (response.ok && said) return said;
  throw new Failure(typeof said?.error === "string" ? said : UNEXPECTED);
}

/** A module that is not needed from the start. Throws a Failure. */
export function load(path) {
  return import(path).catch(() => Promise.reject(new Failure(LOST)));
}

const channel = new BroadcastChannel("chat");

/** To this browser's other tabs. */
export function tell(news) {
  channel.postMessage(news);
}

export function listen(on) {
  channel.addEventListener("message", ({ data }) => on(data));
}
