// The page: it shows one chat, named by the address; the others go on.

import { ask, listen, load } from "./api.js";
import { Composer } from "./composer.js";
import { Conversations } from "./conversations.js";
import { DirectChat } from "./direct.js";
import { announce, button, find, make } from "./dom.js";

const place = find("place");
const composer = new Composer({
  send: (text) => ready.then(() => shown.send(text)),
  stop: () => shown.stop(),
  voice: (body) => ready.then(() => direct.sendVoice(body)),
});
const conversations = new Conversations();
const direct = new DirectChat(drawState);
const stored = new Map(); // Conversation id → its StoredChat.
let shown = direct;
let agents = [];
let library = null;

place.append(direct.transcript.element);

/** The conversation in the address, `#/c/<id>`; empty for the direct chat. */
function named() {
  return /^#\/c\/([0-9a-f-]{36})$/.exec(location.hash)?.[1] ?? "";
}

async function route() {
  const id = named();
  toggleSide(false);
  const chat = id ? await storedChat(id).catch((failure) => named() === id && lost(failure)) : direct;
  if (!chat || named() !== id) return; // Somebody was faster.
  show(chat, id);
  await open(chat);
}

function lost(failure) {
  complain(failure.message);
  location.replace("#/");
}

/** What kept conversations need comes with the first of them. */
async function storedChat(id) {
  library ??= Promise.all([load("./stored.js"), load("./tools.js")]).then(([{ StoredChat }, { equip }]) => {
    equip({ change, remove, agents, title: () => shown.conversation?.title });
    return StoredChat;
  });
  library.catch(() => (library = null));
  const [StoredChat, conversation] = await Promise.all([library, ask("GET", `/api/conversations/${id}`)]);
  if (!stored.has(id)) stored.set(id, new StoredChat(conversation, (said) => (said ? refresh() : drawState())));
  return stored.get(id);
}

function show(chat, id) {
  if (shown !== chat) {
    shown.transcript.hide();
    if (shown !== direct && !shown.busy) forget(shown);
  }
  shown = chat;
  if (!chat.transcript.element.isConnected) place.append(chat.transcript.element);
  conversations.mark(id);
  drawState();
  chat.transcript.show();
  if (matchMedia("(hover: hover)").matches) composer.focus();
}

/** Drawn anew when it is next asked for: only what still runs is worth its memory. */
function forget(chat) {
  stored.delete(chat.conversation.id);
  chat.transcript.element.remove();
}

async function open(chat) {
  try {
    await chat.open();
  } catch (failure) {
    complain(`${failure.message} What was said before cannot be shown.`, () => open(chat));
  }
}

function complain(sentence, again) {
  const retry = again && button("Try again", () => (complaint.remove(), again()));
  const close = button("Close", () => complaint.remove());
  const complaint = make("div", { id: "complaint" }, make("span", {}, sentence), retry, close);
  find("complaint")?.remove();
  place.prepend(complaint);
  announce(sentence);
}

/** Whatever fails is said. */
async function attempt(work) {
  try {
    return await work();
  } catch (failure) {
    complain(failure.message);
  }
}

function click(id, work) {
  find(id).addEventListener("click", () => attempt(work));
}

function drawState() {
  const { conversation } = shown;
  find("title").textContent = shown.title;
  document.title = `${shown.title} – Chat`;
  find("tools").hidden = !conversation;
  if (conversation) find("agent").value = conversation.agentId ?? agents[0]?.id;
  composer.show(shown);
}

/** A title may have come, and the order is another. */
async function refresh() {
  drawState();
  const rows = await conversations.load().catch(() => []);
  for (const row of rows) if (stored.has(row.id)) stored.get(row.id).conversation = row;
  drawState();
}

function change(changes) {
  const chat = shown;
  return attempt(async () => {
    chat.conversation = await conversations.change(chat.conversation.id, changes);
    drawState();
  });
}

function remove() {
  const { id } = shown.conversation;
  return attempt(async () => {
    await conversations.remove(id);
    gone(id);
  });
}

function gone(id) {
  const chat = stored.get(id);
  chat?.stop();
  if (chat && shown === chat) location.hash = "#/";
  else if (chat) forget(chat);
}

/** From another tab. */
function heard({ said, question, changed, answering, list, gone: id }) {
  if (said && !document.hidden) direct.follow(said, question);
  if (list || changed) refresh();
  if (id) gone(id);
  const chat = stored.get(changed);
  if (chat) (answering ? chat.isAnsweredElsewhere() : chat.open()).catch(() => {});
}

/** What happened while nobody looked. */
function lookAgain() {
  if (document.hidden) return;
  refresh();
  shown.open().catch(() => {});
}

function toggleSide(open) {
  const before = document.body.classList.contains("side");
  document.body.classList.toggle("side", open);
  find("menu").setAttribute("aria-expanded", String(open));
  if (before !== open) find(open ? "new" : "menu").focus();
}

/** A newcomer gets a cookie with the first answer: nothing else is asked before. */
async function start() {
  ({ agents } = await ask("GET", "/api/agents"));
  await Promise.all([route(), conversations.load()]);
}

click("new", async () => (location.hash = `#/c/${(await conversations.create()).id}`));
click("more", () => conversations.next());
click("check", async () => (await load("./diagnose.js")).check());
click("voice", () => composer.record());
click("menu", () => toggleSide(true));
click("shade", () => toggleSide(false));
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || !document.body.classList.contains("side")) return;
  event.preventDefault(); // Else it would stop an answer, too.
  toggleSide(false);
}, true);
addEventListener("hashchange", () => attempt(route));
addEventListener("focus", lookAgain);
document.addEventListener("visibilitychange", lookAgain);
listen(heard);
const ready = attempt(start);
