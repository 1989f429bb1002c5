// The sidebar's list: direct chat, then conversations by newest activity.

import { fetchJSON } from "./api.js";
import { find, make } from "./dom.js";
import { broadcast } from "./store.js";

const PAGE = 30;

export class Conversations {
  #list = find("conversations");
  #more = find("more");
  #rows = [];
  #cursor = null;
  #current = "#/";

  async load() {
    const page = await fetchJSON("GET", `/api/conversations?limit=${Math.min(100, Math.max(PAGE, this.#rows.length))}`);
    this.#rows = page.conversations;
    this.#cursor = page.nextCursor;
    this.#draw();
    return this.#rows;
  }

  async next() {
    const page = await fetchJSON("GET", `/api/conversations?limit=${PAGE}&cursor=${encodeURIComponent(this.#cursor)}`);
    const known = new Set(this.#rows.map((row) => row.id));
    this.#rows.push(...page.conversations.filter((row) => !known.has(row.id)));
    this.#cursor = page.nextCursor;
    this.#draw();
  }

  /** Marks the entry with this address as the current one. */
  mark(address) {
    this.#current = address;
    this.#draw();
  }

  add(conversation) {
    this.#rows.unshift(conversation);
    this.#draw();
    broadcast({ list: true });
  }

  async change(id, changes) {
    const conversation = await fetchJSON("PATCH", `/api/conversations/${id}`, changes);
    await this.load();
    broadcast({ list: true, chat: id });
    return conversation;
  }

  async remove(id) {
    await fetchJSON("DELETE", `/api/conversations/${id}`);
    await this.load();
    broadcast({ list: true, deleted: id });
  }

  #draw() {
    const focused = document.activeElement?.getAttribute("href");
    const link = (id, title) => make("a", { href: `#/c/${id}`, dir: "auto" }, title ?? "New conversation");
    const items = this.#rows.map(({ id, title }) => make("li", {}, link(id, title)));
    this.#list.replaceChildren(this.#list.firstElementChild, ...items); // Direct chat stays first.
    for (const link of [find("new"), ...this.#list.querySelectorAll("a")]) {
      if (link.getAttribute("href") === this.#current) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
    if (focused) this.#list.querySelector(`[href="${focused}"]`)?.focus();
    this.#more.hidden = this.#cursor === null;
  }
}
