// The chat page: say something, see the answer stream, see what went wrong.

import { streamChat } from "./sse.js";

const log = document.getElementById("log");
const form = document.getElementById("form");
const text = document.getElementById("text");

function show(kind, content) {
  const item = document.createElement("li");
  item.className = kind;
  item.textContent = content;
  log.append(item);
  log.scrollTop = log.scrollHeight;
  return item;
}

function say(message) {
  show("user", message);
  const item = show("status", "…");
  const become = (kind, content) => {
    item.className = kind;
    item.textContent = content;
    log.scrollTop = log.scrollHeight;
  };
  let said = "";
  const on = {
    status: (event) => said || become("status", event.message),
    progress: (event) => become("answer", (said += event.text)),
    complete: (event) => become("answer", event.response.responses.join("\n\n")),
    stopped: (event) => become("answer", event.response.responses.join("\n\n")),
    error: (event) => become("error", said ? `${said}\n\n${event.error}` : event.error),
  };
  streamChat({
    message,
    onEvent: (event) => on[event.type]?.(event),
    onConnection: ({ state, failure }) => state === "waiting" && !said && become("status", `${failure.error} Trying again…`),
  });
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  const message = text.value;
  if (!message.trim()) return;
  text.value = "";
  say(message);
});

text.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  form.requestSubmit();
});
