// What can be done with a conversation: another agent, another title, delete it.

import { button, find, make } from "./dom.js";

const field = find("field");

/** @param {{change: (changes: {title?: string | null, agentId?: string}) => void, remove: () => void, title: () => string}} on */
export function addTools({ change, remove, title }) {
  find("agent").addEventListener("change", ({ target }) => change({ agentId: target.value }));
  find("rename").addEventListener("click", () => {
    field.value = title();
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
    if (await confirm(`Delete “${title() || "New conversation"}”? It cannot be brought back.`, "Delete")) remove();
  });
}

/** @param {{id: string, name: string, description: string}[]} agents */
export function listAgents(agents) {
  find("agent").replaceChildren(...agents.map(({ id, name, description }) => make("option", { value: id, title: description }, name)));
}

/** `conversation`: null before it is created; undefined where there is none. */
export function showTools(conversation, agentId) {
  find("tools").hidden = conversation === undefined;
  find("rename").hidden = find("delete").hidden = !conversation;
  if (agentId) find("agent").value = agentId;
}

function showField(yes) {
  field.hidden = !yes;
  find("title").hidden = yes;
}

/** A dialog; true if `word` is clicked. */
function confirm(question, word) {
  return new Promise((resolve) => {
    const answer = (yes) => () => (resolve(yes), dialog.close());
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
