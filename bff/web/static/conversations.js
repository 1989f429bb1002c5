// The conversations at the side, the newest activity first.

import { ask, tell } from "./api.js";
import { find, make } from "./dom.js";

const PAGE = 30;

export class Conversations {
  #list = find("conversations");
  #more = find("more");
  #rows = [];
  #cursor = null;
  #current = "";

  async load() {
    const page = await ask("GET", `/api/conversations?limit=${Math.min(100, Math.max(PAGE, this.#rows.length))}`);
    this.#rows = page.conversations;
    this.#cursor = page.nextCursor;
    this.#draw();
    return this.#rows;
  }

  async next() {
    const page = await ask("GET", `/api/conversations?limit=${PAGE}&cursor=${encodeURIComponent(this.#cursor)}`);
    const known = new Set(this.#rows.map((row) => row.id));
    this.#rows.push(...page.conversations.filter((row) => !known.has(row.id)));
    this.#cursor = page.nextCursor;
    this.#draw();
  }

  mark(id) {
    this.#current = id;
    this.#draw();
  }

  async create() {
    const conversation = await ask("POST", "/api/conversations", {});
    this.#rows.unshift(conversation);
    this.#draw();
    tell({ list: true });
    return conversation;
  }

  async change(id, changes) {
    const conversation = await ask("PATCH", `/api/conversations/${id}`, changes);
    await this.load();
    tell({ list: true, changed: id });
    return conversation;
  }

  async remove(id) {
    await ask("DELETE", `/api/conversations/${id}`);
    await this.load();
    tell({ list: true, gone: id });
  }

  #draw() {
    const item = ({ id, title }) => {
      const current = id === this.#current && "page";
      return make("li", {}, make("a", { href: `#/c/${id}`, "aria-current": current }, title ?? "New conversation"));
    };
    const focused = document.activeElement?.getAttribute("href");
    this.#list.replaceChildren(...this.#rows.map(item));
    if (focused) this.#list.querySelector(`[href="${focused}"]`)?.focus();
    find("direct").setAttribute("aria-current", this.#current ? "false" : "page");
    this.#more.hidden = this.#cursor === null;
  }
}
