// The relay as a Next.js route has it: fetch, its body through a TransformStream, that to the response. Node alone.

import { createServer } from "node:http";
import { once } from "node:events";

const BROKER = process.env.BROKER_BASE_URL;
const KEY = { "X-API-Key": process.env.BROKER_API_KEY };
const STATUS = { queued: "Message queued...", processing: "Processing..." };

function translation() {
  const decoder = new TextDecoder();
  const encoder = new TextEncoder();
  let pending = "";
  return new TransformStream({
    transform(chunk, controller) {
      pending += decoder.decode(chunk, { stream: true });
      const blocks = pending.split("\n\n");
      pending = blocks.pop();
      for (const block of blocks) {
        let event = "message";
        let data = "";
        for (const line of block.split("\n")) {
          if (line.startsWith("event: ")) event = line.slice(7);
          else if (line.startsWith("data: ")) data = line.slice(6);
          else if (line.startsWith(":")) event = "comment";
        }
        if (event === "done") controller.terminate();
        else if (event in STATUS) {
          controller.enqueue(encoder.encode(`data: ${JSON.stringify({ type: "status", message: STATUS[event] })}\n\n`));
        } else if (event === "message") controller.enqueue(encoder.encode(`data: ${data}\n\n`));
      }
    },
  });
}

async function bodyOf(request) {
  let text = "";
  for await (const piece of request) text += piece;
  return JSON.parse(text);
}

async function relay(request, response) {
  const aborted = new AbortController();
  response.on("close", () => aborted.abort());
  const { message } = await bodyOf(request);
  const user_id = request.headers["x-forwarded-user"];
  const answer = await fetch(`${BROKER}/api/v1/message`, {
    method: "POST",
    headers: { ...KEY, "Content-Type": "application/json" },
    body: JSON.stringify({ user_id, org_id: "org", message, message_type: "text", client_id: "web" }),
  });
  const { message_id } = await answer.json();
  const query = new URLSearchParams({ user_id, message_id });
  const stream = await fetch(`${BROKER}/api/v1/stream?${query}`, { headers: KEY, signal: aborted.signal });
  response.writeHead(200, { "Content-Type": "text/event-stream", "Cache-Control": "no-cache" });
  await stream.body.pipeThrough(translation()).pipeTo(
    new WritableStream({
      async write(chunk) {
        if (!response.write(chunk)) await once(response, "drain", { signal: aborted.signal });
      },
    }),
  );
  response.end();
}

createServer((request, response) => {
  relay(request, response).catch(() => {
    if (!response.headersSent) response.writeHead(502);
    response.end();
  });
}).listen(Number(process.env.PORT), "127.0.0.1", 2048);
