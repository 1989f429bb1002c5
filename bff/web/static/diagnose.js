// Whether something between this page and the server holds streams back, judged by ten timed ticks: as `flask diagnose` does.

import { announce, find } from "./dom.js";
import { readEvents } from "./sse.js";

const TOGETHER = 0.25; // Of the gap with which two ticks were sent: what comes closer than this came together.

/** The button says the verdict. */
export async function check() {
  const button = find("check");
  button.textContent = "Listening to ten ticks …";
  button.textContent = await verdict().catch(() => "No stream came: the server cannot be reached.");
  announce(button.textContent);
}

async function verdict() {
  const ticks = [];
  const response = await fetch("/api/diagnostics/stream"); // Whoever asks for an event stream is told to come back, not refused.
  if (!response.ok) return `The server answered ${response.status}.`;
  for await (const event of readEvents(response.body)) {
    const sent = JSON.parse(event.data).elapsed_ms;
    if (typeof sent === "number") ticks.push({ sent, came: performance.now() });
  }
  return judged(ticks);
}

function judged(ticks) {
  if (ticks.length < 2) return "Hardly a tick came: something on the way changes the stream, or ends it.";
  const gaps = ticks.slice(1).map((tick, number) => [tick.came - ticks[number].came, tick.sent - ticks[number].sent]);
  const together = gaps.filter(([came, sent]) => came < TOGETHER * sent).length;
  if (together * 2 < gaps.length) return `All ${ticks.length} ticks came as they were sent: nothing holds streams back.`;
  return `${together + 1} of ${ticks.length} ticks came together: something on the way holds streams back, ` +
    "most often a proxy that buffers or compresses (nginx: proxy_buffering off).";
}
