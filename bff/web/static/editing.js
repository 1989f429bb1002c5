// Edits a message in place, where the original stays one click away, or sends it again as a new version.

import { button, isComposing, make } from "./dom.js";

/** The edited text, or the original. */
export function effective(message) {
  return message.editedContent ?? message.content;
}

/**
 * Adds the buttons to `view.actions`. `save(message, content)` stores the text or throws a Failure. `ask(content)` sends it as a
 * new question.
 */
export function addEditing(message, view, save, ask) {
  const original = button("Edited", () => press(original.getAttribute("aria-pressed") !== "true"), {
    title: "Show what it was before",
    "aria-pressed": "false",
    hidden: message.editedContent === null,
  });
  const press = (pressed) => {
    original.setAttribute("aria-pressed", String(pressed));
    view.show(pressed ? message.content : effective(message));
  };
  const saveAndShow = async (content) => {
    await save(message, content);
    original.hidden = false;
    press(false);
  };
  const edit = button("Edit", () => open(view, effective(message), saveAndShow, ask, edit));
  view.actions.append(edit, original);
}

function open(view, text, save, ask, opener) {
  const area = make("textarea", { "aria-label": "Message", dir: "auto", rows: Math.min(12, text.split("\n").length + 1) });
  const problem = make("p", { class: "problem", role: "alert" });
  const close = () => {
    const { activeElement } = document; // The user may have moved the focus while saving.
    const hasFocus = activeElement === document.body || form.contains(activeElement);
    form.replaceWith(view.text);
    view.actions.hidden = false;
    if (hasFocus) opener.focus();
  };
  const finish = async () => {
    if (!area.value.trim()) return area.focus();
    try {
      await save(area.value);
    } catch (failure) {
      return problem.replaceChildren(failure.message);
    }
    close();
  };
  const askAgain = () => {
    if (!area.value.trim()) return area.focus();
    close();
    ask(area.value);
  };
  const more = ask ? [button("Ask again", askAgain, { class: "main" })] : [];
  const buttons = [...more, button("Save", finish, { class: ask ? null : "main" }), button("Cancel", close)];
  const form = make("div", { class: "edit" }, area, problem, make("div", { class: "buttons" }, ...buttons));
  area.value = text;
  area.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || isComposing(event)) return;
    event.preventDefault();
    close();
  });
  view.actions.hidden = true;
  view.text.replaceWith(form);
  area.focus();
}
