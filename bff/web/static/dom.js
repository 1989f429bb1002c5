// Creates elements. Text is never parsed as HTML, here or elsewhere in the page.

/** Functions in `attributes` become event listeners; null, undefined, false and empty children are omitted. */
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

/** Text for screen readers only. */
export function unseen(text) {
  return make("span", { class: "unseen" }, text);
}

export function find(id) {
  return document.getElementById(id);
}

/** A button that copies the result of `text()`. Empty if the clipboard is not available, as over plain http. */
export function copyButton(text, what) {
  if (!navigator.clipboard) return "";
  const show = (label) => element.replaceChildren(label, unseen(` ${what}`));
  const element = button("", async () => {
    await navigator.clipboard.writeText(text());
    show("Copied");
    setTimeout(show, 2000, "Copy");
  });
  show("Copy");
  return element;
}

/** Announces `text` through the page's live region. */
export function announce(text) {
  find("announcer").textContent = text;
}
