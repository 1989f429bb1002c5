// A reply in a kept conversation, on its way to its only reader.

import { Failure, LOST, understood } from "./api.js";
import { EventParser, readEvents, wait } from "./sse.js";

const SILENCE = 45; // Seconds, as all times here. Heartbeats come every 15.
const BUSY_PAUSE = 1.5;
const BUSY_TIMES = 80;

/**
 * An agent's reply, told by its tokens: its message's id, or nothing where there is one already.
 * If the line breaks, the server keeps nothing: the reply is asked for once more, when the network is back.
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
  for (let left = BUSY_TIMES; ; left--) {
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
  const line = wait(SILENCE, signal);
  document.addEventListener("visibilitychange", line.look, { signal: line.signal });
  try {
    const response = await fetch(path, { signal: line.signal }).catch(() => null);
    if (!response) throw new Failure(LOST);
    if (response.status === 204) return;
    if (!response.ok || !response.body) await understood(response);
    return await readTokens(response.body, line, onToken);
  } finally {
    line.end();
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

/** Until the server answers, asked at growing intervals, and not with /healthz, which it answers even while it drains. */
async function reachable(signal) {
  for (let seconds = 0.5; ; seconds = Math.min(8, seconds * 2)) {
    await pause(seconds * (0.5 + Math.random()), signal);
    const response = await fetch("/api/agents", { signal }).catch(() => null);
    signal.throwIfAborted();
    if (response && response.status < 500) return;
  }
}

/** Cut short when the browser is online again. */
async function pause(seconds, signal) {
  const { over, end, signal: ended } = wait(seconds, signal);
  addEventListener("online", end, { signal: ended });
  await over;
  signal.throwIfAborted();
}
