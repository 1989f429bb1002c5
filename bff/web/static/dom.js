// Elements in one line each. Whatever is said becomes text: nothing here, or in this page, reads HTML.

/** Attributes that are functions listen to the event of that name; attributes and children that are nothing are left out. */
export function make(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(key, value);
    else if (value !== false && value != null) element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.filter(Boolean));
  return element;
}

export function button(text, click, attributes = {}) {
  return make("button", { type: "button", click, ...attributes }, text);
}

/** What only a screen reader says. */
export function unseen(text) {
  return make("span", { class: "unseen" }, text);
}

export function find(id) {
  return document.getElementById(id);
}

/** Copies what `text` gives, and says so; nothing where the page came over plain http and may not. */
export function copyButton(text, what) {
  if (!navigator.clipboard) return "";
  const show = (word) => element.replaceChildren(word, unseen(` ${what}`));
  const element = button("", async () => {
    await navigator.clipboard.writeText(text());
    show("Copied");
    setTimeout(show, 2000, "Copy");
  });
  show("Copy");
  return element;
}

/** Said aloud where a screen reader listens, once it has nothing else to say. */
export function announce(text) {
  find("announcer").textContent = text;
}
