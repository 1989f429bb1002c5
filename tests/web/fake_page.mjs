// The parts of a page and of a worker that the examples in docs/sse-js.md use.

const { CHAT_URL, PROXY_SECRET } = process.env;
const { fetch, Request } = globalThis;
const elements = new Map();

class Element extends EventTarget {
  textContent = "";
}

export const element = (name) => elements.get(name) ?? elements.set(name, new Element()).get(name);

export const posted = [];

/** Waits until `condition` is true. The calling test has the timeout. */
export async function waitFor(condition) {
  while (!condition()) await new Promise((resolve) => setTimeout(resolve, 5));
}

globalThis.document = Object.assign(new EventTarget(), {
  hidden: false,
  querySelector: element,
});
globalThis.self = globalThis;
globalThis.postMessage = (message) => posted.push(message);
globalThis.Request = class extends Request {
  constructor(url, init) {
    super(new URL(url, CHAT_URL), init);
  }
};
globalThis.fetch = (url, { headers, ...init }) => {
  const all = new Headers(headers);
  all.set("X-Proxy-Secret", PROXY_SECRET);
  all.set("X-Forwarded-User", "reader");
  return fetch(new URL(url, CHAT_URL), { ...init, headers: all });
};
