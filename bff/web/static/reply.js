// A reply in a kept conversation, on its way to its only reader.

import { Failure, LOST, understood } from "./api.js";
import { EventParser, readEvents } from "./sse.js";

const SILENCE = 45_000; // Milliseconds. Heartbeats come every 15 seconds.
const BUSY_PAUSE = 1500;
const BUSY_PATIENCE = 80;

/**
 * An agent's reply, told by its tokens: its message's id, or nothing where there is one already. A line that breaks stores nothing of it: it is asked for again, once, when the network is back.
 * Throws a Failure, and whatever `signal` was aborted with.
 * @param {string} path With its query.
 * @param {{signal: AbortSignal, onToken: (text: string) => void, onAgain: () => void, onBusy: () => void}} on
 */
export async function reply(path, { signal, onToken, onAgain, onBusy }) {
  for (let again = false; ; again = true) {
    try {
      return await readReply(path, signal, onToken, onBusy);
    } catch (problem) {
      signal.throwIfAborted();
      if (again || !["connection_lost", "server_restarting"].includes(problem.code)) throw problem;
    }
    onAgain();
    await reachable(signal);
  }
}

/** Waits while another reply in the conversation is being written: that may be our own, before the break. */
async function readReply(path, signal, onToken, onBusy) {
  for (let left = BUSY_PATIENCE; ; left--) {
    try {
      return await once(path, signal, onToken);
    } catch (problem) {
      if (problem.code !== "busy" || !left) throw problem;
    }
    onBusy();
    await pause(BUSY_PAUSE, signal);
  }
}

async function once(path, signal, onToken) {
  const life = new AbortController();
  const leave = () => life.abort();
  signal.addEventListener("abort", leave);
  let timer = setTimeout(leave, SILENCE);
  const heard = () => {
    clearTimeout(timer);
    timer = setTimeout(leave, SILENCE);
  };
  const over = new Promise((resolve) => life.signal.addEventListener("abort", resolve));
  try {
    const response = await fetch(path, { signal: life.signal }).catch(() => null);
    if (!response) throw new Failure(LOST);
    if (response.status === 204) return;
    if (!response.ok || !response.body) await understood(response);
    return await readTokens(response.body, { over, heard }, onToken);
  } finally {
    signal.removeEventListener("abort", leave);
    clearTimeout(timer);
  }
}

async function readTokens(body, line, onToken) {
  try {
    for await (const { event, data } of readEvents(body, new EventParser(), line)) {
      if (event === "done") return JSON.parse(data).messageId;
      if (event === "failure") throw new Failure(JSON.parse(data));
      if (event === "token") onToken(JSON.parse(data).token);
    }
  } catch (problem) {
    if (problem instanceof Failure) throw problem;
  }
  throw new Failure(LOST);
}

/** Until the server answers, at growing intervals; at once when the browser is online again. */
async function reachable(signal) {
  for (let seconds = 0.5; ; seconds = Math.min(8, seconds * 2)) {
    await pause(seconds * 1000 * (0.5 + Math.random()), signal);
    const response = await fetch("/healthz", { signal, cache: "no-store" }).catch(() => null);
    signal.throwIfAborted();
    if (response?.ok) return;
  }
}

function pause(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    const end = () => {
      clearTimeout(timer);
      removeEventListener("online", end);
      signal.removeEventListener("abort", end);
      signal.aborted ? reject(signal.reason) : resolve(undefined);
    };
    const timer = setTimeout(end, milliseconds);
    addEventListener("online", end);
    signal.addEventListener("abort", end);
    if (signal.aborted) end();
  });
}
