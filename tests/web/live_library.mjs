// What the tests against a live server share: where it is, who is asking, and a user for each question.

import { hearOut } from "./library.mjs";

const { CHAT_URL, PROXY_SECRET, SILENCE_SECONDS = "45" } = process.env;
let users = 0;

export const who = (user = `user-${++users}`) => ({ "X-Proxy-Secret": PROXY_SECRET, "X-Forwarded-User": user });
export const here = (user) => ({
  url: `${CHAT_URL}/api/chat/stream`,
  headers: who(user),
  idleTimeoutSeconds: Number(SILENCE_SECONDS),
});
export const say = (message, options) => hearOut({ ...here(), message, ...options });
export const breaks = ({ connections }) => connections.filter(({ state }) => state === "waiting").length;
export const words = (count) => Array.from({ length: count }, (_, number) => `wörd-${number}`).join(" ");
