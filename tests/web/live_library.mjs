// Shared by the tests against a live server: its URL, and headers of a new user for each message.

import { streamToEnd } from "./library.mjs";

const { CHAT_URL, PROXY_SECRET, IDLE_TIMEOUT_SECONDS = "45" } = process.env;
let users = 0;

export const headersOf = (user = `user-${++users}`) => ({ "X-Proxy-Secret": PROXY_SECRET, "X-Forwarded-User": user });
export const serverOptions = (user) => ({
  url: `${CHAT_URL}/api/chat/stream`,
  headers: headersOf(user),
  idleTimeoutSeconds: Number(IDLE_TIMEOUT_SECONDS),
});
export const send = (message, options) => streamToEnd({ ...serverOptions(), message, ...options });
export const countBreaks = ({ connections }) => connections.filter(({ state }) => state === "waiting").length;
export const numberedWords = (count) => Array.from({ length: count }, (_, number) => `wörd-${number}`).join(" ");
