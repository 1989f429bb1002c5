// Creates elements. Text is never parsed as HTML, here or elsewhere in the page.

import { attempt } from "./store.js";

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

/** `seconds`: how long the button is disabled at first. */
export function button(text, click, attributes = {}, seconds = 0) {
  const element = make("button", { type: "button", click, disabled: seconds > 0, ...attributes }, text);
  if (seconds > 0) setTimeout(() => (element.disabled = false), seconds * 1000);
  return element;
}

/** Text for screen readers only. */
export function unseen(text) {
  return make("span", { class: "unseen" }, text);
}

export function find(id) {
  return document.getElementById(id);
}

/** Whether a key belongs to an input method. In Safari the Enter that commits a text comes after the composition's end. */
export function isComposing({ isComposing, keyCode }) {
  return isComposing || keyCode === 229;
}

/** A button that copies the result of `text()`. Empty if the clipboard is not available, as over plain http. */
export function copyButton(text, what) {
  const clipboard = attempt(() => navigator.clipboard);
  if (!clipboard) return "";
  const show = (label) => element.replaceChildren(label, unseen(` ${what}`));
  const element = button("", async () => {
    const copied = clipboard.writeText(text()).then(() => true); // It rejects if the user or a policy denies it.
    show((await copied.catch(() => false)) ? "Copied" : "Not copied");
    setTimeout(show, 2000, "Copy");
  });
  show("Copy");
  return element;
}

/** Announces `text` through the page's live region. */
export function announce(text) {
  find("announcer").textContent = text;
}
