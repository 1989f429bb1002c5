// The page. It shows the chat named in the URL's fragment: `#/` is a new conversation, `#/c/<id>` an existing one, `#/direct`
// direct chat.

import { fetchJSON, load } from "./api.js";
import { ChatView } from "./chat_view.js";
import { Composer } from "./composer.js";
import { Conversation } from "./conversation.js";
import { Conversations } from "./conversations.js";
import { DirectChat } from "./direct.js";
import { announce, button, find, isComposing, make } from "./dom.js";
import { subscribe } from "./store.js";
import { addTools, listAgents, showTools } from "./tools.js";

const container = find("chat");
const composer = new Composer({
  send,
  stop: () => shown.stop(),
  voice: (body) => ready.then(() => direct.sendVoice(body)),
});
const conversations = new Conversations();
const direct = viewOf(new DirectChat());
let shown = newConversation();
let agents = [];

/** Sends in the chat that is shown now: the user may have gone to another one before the page is ready. */
function send(text) {
  const view = shown;
  ready.then(() => view.send(text));
}

function viewOf(source) {
  return new ChatView(source, { change: (view, activity) => view === shown && drawChange(activity), complain });
}

function newConversation(conversation = null) {
  const view = viewOf(new Conversation(conversation, (created) => showCreated(view, created)));
  return view;
}

function showCreated(view, conversation) {
  conversations.add(conversation);
  if (view !== shown) return;
  history.replaceState(null, "", `#/c/${conversation.id}`);
  conversations.mark(location.hash);
}

/** The id of the conversation in the address. */
function idInAddress() {
  return /^#\/c\/([0-9a-f-]{36})$/.exec(location.hash)?.[1] ?? "";
}

async function route() {
  const { hash } = location;
  const view = await viewAt(hash).catch((failure) => location.hash === hash && notFound(failure));
  if (!view || location.hash !== hash) return; // The user has navigated on.
  show(view);
  await open(view);
}

async function viewAt(hash) {
  const id = idInAddress();
  if (hash === "#/direct") return direct;
  if (shown.source.id === id && (id || shown.isEmpty)) return shown;
  return newConversation(id ? await fetchJSON("GET", `/api/conversations/${id}`) : null);
}

function notFound(failure) {
  complain(failure.message);
  location.replace("#/");
}

function show(view) {
  if (shown !== view) hide(shown);
  shown = view;
  view.resume();
  if (!view.transcript.element.isConnected) container.append(view.transcript.element);
  conversations.mark(location.hash || "#/");
  drawState();
  view.transcript.show();
  if (matchMedia("(hover: hover)").matches && !isSideOpen()) composer.focus();
}

/** Closes the streams of a hidden chat. */
function hide(view) {
  view.transcript.hide();
  if (!view.source.continues) return view.pause();
  view.leave();
  view.transcript.element.remove();
}

async function open(view) {
  try {
    await view.open();
  } catch (failure) {
    complain(`${failure.message} Earlier messages cannot be shown.`, () => open(view), failure.retryAfter);
  }
}

function complain(message, retry, seconds) {
  const retryButton = retry && button("Try again", () => (complaint.remove(), retry()), {}, seconds);
  const close = button("Close", () => complaint.remove());
  const complaint = make("div", { id: "complaint" }, make("span", {}, message), retryButton, close);
  find("complaint")?.remove();
  container.prepend(complaint);
  announce(message);
}

/** Runs `work` and shows the message of an error. */
async function attempt(work) {
  try {
    return await work();
  } catch (failure) {
    complain(failure.message);
  }
}

function onClick(id, work) {
  find(id).addEventListener("click", () => attempt(work));
}

function drawState() {
  const { title, conversation, draft, continues } = shown.source;
  find("title").textContent = title;
  document.title = `${title} – Chat`;
  find("persistence").hidden = !continues;
  showTools(continues ? conversation : undefined, (conversation ?? draft)?.agentId ?? agents[0]?.id);
  composer.show(shown);
}

/** Activity in a conversation moves it in the list, and may give it a title. */
function drawChange(activity) {
  if (activity && shown.source.continues) refresh();
  else drawState();
}

async function refresh() {
  drawState();
  const rows = await conversations.load().catch(() => []);
  const { source } = shown;
  const row = rows.find(({ id }) => id === source.id);
  if (row) source.conversation = row;
  drawState();
}

function change(changes) {
  const { source } = shown;
  if (!source.conversation) return void Object.assign(source.draft, changes);
  return attempt(async () => {
    source.conversation = await conversations.change(source.id, changes);
    drawState();
  });
}

function remove() {
  const { id } = shown.source;
  return attempt(async () => {
    await conversations.remove(id);
    onDeleted(id);
  });
}

function onDeleted(id) {
  if (shown.source.id === id) location.hash = "#/";
}

/** Handles a message from another tab. */
function onMessage({ chat, list, deleted }) {
  if (document.hidden) return; // `refreshAll` runs when the tab is shown.
  if (list) refresh();
  if (deleted) onDeleted(deleted);
  if (chat && chat === shown.source.id) shown.changed();
}

/** Loads what changed while the tab was hidden. */
function refreshAll() {
  if (document.hidden) return;
  refresh();
  shown.open().catch(({ code }) => code === "not_found" && onDeleted(shown.source.id));
}

/** On a narrow page. */
function isSideOpen() {
  return document.body.classList.contains("side");
}

function toggleSide(open) {
  const before = isSideOpen();
  document.body.classList.toggle("side", open);
  find("menu").setAttribute("aria-expanded", String(open));
  if (before !== open) find(open ? "new" : "menu").focus();
}

/** A new visitor gets a cookie with the first response, so no other request is sent before it. */
async function start() {
  if (!idInAddress()) show(location.hash === "#/direct" ? direct : shown);
  ({ agents } = await fetchJSON("GET", "/api/agents"));
  listAgents(agents);
  await Promise.all([route(), conversations.load()]);
}

onClick("more", () => conversations.next());
onClick("check", async () => (await load("./diagnose.js")).check());
onClick("voice", () => composer.record());
onClick("menu", () => toggleSide(true));
onClick("new", () => toggleSide(false));
onClick("shade", () => toggleSide(false));
addTools({ change, remove, title: () => shown.source.conversation?.title ?? "" });
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || isComposing(event) || !isSideOpen()) return;
  event.preventDefault(); // Otherwise it would also stop a reply.
  toggleSide(false);
}, true);
addEventListener("hashchange", () => {
  toggleSide(false);
  attempt(route);
});
addEventListener("focus", refreshAll);
document.addEventListener("visibilitychange", refreshAll);
subscribe(onMessage);
const ready = attempt(start);
