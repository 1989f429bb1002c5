// What can be done with a kept conversation: another agent, another title, away with it.

import { button, find, make } from "./dom.js";

const field = find("field");
const styles = make("link", { rel: "stylesheet", href: "/static/kept.css" });

document.head.append(styles);
await new Promise((resolve) => ["load", "error"].forEach((name) => styles.addEventListener(name, resolve)));

/**
 * @param {{change: (changes: {title?: string | null, agentId?: string}) => void, remove: () => void,
 *   title: () => string | null, agents: {id: string, name: string, description: string}[]}} on
 */
export function equip({ change, remove, title, agents }) {
  const options = agents.map(({ id, name, description }) => make("option", { value: id, title: description }, name));
  find("agent").replaceChildren(...options);
  find("agent").addEventListener("change", ({ target }) => change({ agentId: target.value }));
  find("rename").addEventListener("click", () => {
    field.value = title() ?? "";
    showField(true);
    field.select();
  });
  field.addEventListener("blur", () => showField(false));
  field.addEventListener("keydown", (event) => {
    if (!["Enter", "Escape"].includes(event.key)) return;
    event.preventDefault();
    if (event.key === "Enter") change({ title: field.value.trim() || null });
    showField(false);
    find("rename").focus();
  });
  find("delete").addEventListener("click", async () => {
    if (await confirm(`Delete “${title() ?? "New conversation"}”? It cannot be brought back.`, "Delete")) remove();
  });
}

function showField(yes) {
  field.hidden = !yes;
  find("title").hidden = yes;
}

/** Asks whether it should be done, in words of its own. */
function confirm(question, word) {
  return new Promise((resolve) => {
    const answer = (said) => () => (resolve(said), dialog.close());
    const buttons = [button("Cancel", answer(false)), button(word, answer(true), { class: "main" })];
    const dialog = make(
      "dialog",
      { "aria-label": question, close: () => (resolve(false), dialog.remove()) },
      make("p", {}, question),
      make("div", { class: "buttons" }, ...buttons),
    );
    document.body.append(dialog);
    dialog.showModal();
  });
}
