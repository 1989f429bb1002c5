// The chat page: say something, see the answer stream, see what went wrong.

const log = document.getElementById("log");
const form = document.getElementById("form");
const text = document.getElementById("text");

/** The JSON of each event in a response that streams. Every event is one `data: ` line here. */
async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const blocks = (rest + value).split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      const line = block.split("\n").find((candidate) => candidate.startsWith("data: "));
      if (line) yield JSON.parse(line.slice("data: ".length));
    }
  }
}

function show(kind, content) {
  const item = document.createElement("li");
  item.className = kind;
  item.textContent = content;
  log.append(item);
  log.scrollTop = log.scrollHeight;
  return item;
}

async function say(message) {
  show("user", message);
  const item = show("status", "…");
  const become = (kind, content) => {
    item.className = kind;
    item.textContent = content;
    log.scrollTop = log.scrollHeight;
  };
  let said = "";
  let ended = false;
  const fail = (sentence) => become("error", said ? `${said}\n\n${sentence}` : sentence);
  const on = {
    status: (event) => said || become("status", event.message),
    progress: (event) => become("answer", (said += event.text)),
    complete: (event) => become("answer", event.response.responses.join("\n\n")),
    stopped: (event) => become("answer", event.response.responses.join("\n\n")),
    error: (event) => fail(event.error),
  };
  try {
    const response = await fetch("/api/chat/stream", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ message }),
    });
    if (!response.ok) throw new Error((await response.json()).error);
    for await (const event of events(response)) {
      on[event.type]?.(event);
      ended ||= ["complete", "stopped", "error"].includes(event.type);
    }
    if (!ended) throw new Error("The connection broke off.");
  } catch (error) {
    fail(error.message);
  }
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
