// The conversation's tools: choose an agent, rename, delete.

import { button, find, isComposing, make } from "./dom.js";

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
    if (!["Enter", "Escape"].includes(event.key) || isComposing(event)) return;
    event.preventDefault();
    if (event.key === "Enter") change({ title: field.value.trim() || null });
    showField(false);
    find("rename").focus();
  });
  find("delete").addEventListener("click", async () => {
    if (await confirm(`Delete “${isolate(title() || "New conversation")}”? It cannot be brought back.`, "Delete")) remove();
  });
}

/** @param {{id: string, name: string, description: string}[]} agents */
export function listAgents(agents) {
  find("agent").replaceChildren(...agents.map(({ id, name, description }) => make("option", { value: id, title: description, dir: "auto" }, name)));
}

/** `conversation`: null if it is not created yet; undefined for direct chat. */
export function showTools(conversation, agentId) {
  find("tools").hidden = conversation === undefined;
  find("rename").hidden = find("delete").hidden = !conversation;
  if (agentId) find("agent").value = agentId;
}

/** Keeps the direction of `text` from affecting the text around it. */
function isolate(text) {
  return `\u2068${text}\u2069`;
}

function showField(visible) {
  field.hidden = !visible;
  find("title").hidden = visible;
}

/** Opens a dialog. Resolves with true if the button `label` is clicked. */
function confirm(question, label) {
  return new Promise((resolve) => {
    const choose = (confirmed) => () => (resolve(confirmed), dialog.close());
    const buttons = [button("Cancel", choose(false)), button(label, choose(true), { class: "main" })];
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
