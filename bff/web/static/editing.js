// A message that is edited, with what it was before one click away.

import { button, make } from "./dom.js";

/** What counts. */
export function effective(message) {
  return message.editedContent ?? message.content;
}

/**
 * Its buttons, in `view.actions`. `save(message, content)` changes the message, or throws a Failure; `next()` gives what
 * may be done after that, or nothing.
 */
export function addEditing(message, view, save, next) {
  const original = button("Edited", () => press(original.getAttribute("aria-pressed") !== "true"), {
    title: "Show what it was before",
    "aria-pressed": "false",
    hidden: message.editedContent === null,
  });
  const press = (pressed) => {
    original.setAttribute("aria-pressed", String(pressed));
    view.show(pressed ? message.content : effective(message));
  };
  const saved = async (content) => {
    await save(message, content);
    original.hidden = false;
    press(false);
  };
  const edit = button("Edit", () => open(view, effective(message), saved, next(), edit));
  view.actions.append(edit, original);
}

function open(view, text, save, next, opener) {
  const area = make("textarea", { "aria-label": "Message", rows: Math.min(12, text.split("\n").length + 1) });
  const problem = make("p", { class: "problem", role: "alert" });
  const close = () => {
    const { activeElement } = document; // Saving takes time: the user may be elsewhere by now.
    const isHere = activeElement === document.body || form.contains(activeElement);
    form.replaceWith(view.text);
    view.actions.hidden = false;
    if (isHere) opener.focus();
  };
  const finish = async (then) => {
    if (!area.value.trim()) return area.focus();
    try {
      await save(area.value);
    } catch (failure) {
      return problem.replaceChildren(failure.message);
    }
    close();
    then?.();
  };
  const more = next ? [button("Save and ask again", () => finish(next))] : [];
  const buttons = [button("Save", () => finish(), { class: "main" }), ...more, button("Cancel", close)];
  const form = make("div", { class: "edit" }, area, problem, make("div", { class: "buttons" }, ...buttons));
  area.value = text;
  area.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    event.preventDefault();
    close();
  });
  view.actions.hidden = true;
  view.text.replaceWith(form);
  area.focus();
}
