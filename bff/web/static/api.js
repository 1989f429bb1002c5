// Requests to the server.

import { ROOT } from "./root.js";
import { retryAfter } from "./sse.js";

const MAX_WAIT_SECONDS = 10; // A longer `Retry-After` is left to the user.

const LOST = { error: "The connection was lost.", code: "connection_lost" };
const UNEXPECTED = { error: "The server's answer makes no sense.", code: "unexpected_response" };

/** A failed request. `message` is shown to the user. */
export class Failure extends Error {
  /** `retryAfter`: seconds before the request may be repeated. */
  constructor({ error, code }, retryAfter = 0) {
    super(error);
    this.code = code;
    this.retryAfter = retryAfter;
  }
}

/** `path`: below ROOT. Returns the response's JSON, or null for a 204. A short `Retry-After` is waited out. Throws a Failure. */
export async function fetchJSON(method, path, content) {
  const deadline = Date.now() + MAX_WAIT_SECONDS * 1000;
  for (;;) {
    const response = await request(method, path, content);
    const seconds = retryAfter(response);
    if (!mayRepeat(method, response, seconds) || Date.now() + seconds * 1000 > deadline) return parse(response, seconds);
    await new Promise((resolve) => setTimeout(resolve, seconds * 1000));
  }
}

async function request(method, path, content) {
  const headers = content ? { "Content-Type": "application/json" } : undefined;
  const response = await fetch(ROOT + path, { method, headers, body: content && JSON.stringify(content) }).catch(() => null);
  if (!response) throw new Failure(LOST);
  return response;
}

/** A 429 was not processed; of a 503 that is unknown. */
function mayRepeat(method, { status }, seconds) {
  return seconds > 0 && (status === 429 || (status === 503 && method === "GET"));
}

async function parse(response, seconds) {
  if (response.status === 204) return null;
  const parsed = await response.json().catch(() => null);
  if (response.ok && parsed) return parsed;
  throw new Failure(typeof parsed?.error === "string" ? parsed : UNEXPECTED, seconds);
}

/** Imports a module on demand. Throws a Failure. */
export function load(path) {
  return import(path).catch(() => Promise.reject(new Failure(LOST)));
}
