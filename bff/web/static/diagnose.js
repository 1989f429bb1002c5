// Detects proxies that buffer streams, from the arrival times of ten ticks, like `flask diagnose`.

import { announce, find } from "./dom.js";
import { ROOT } from "./root.js";
import { readEvents } from "./sse.js";

const MAX_BUNCHED_GAP = 0.25; // Ticks arrive together if their gap is below this fraction of the gap at the sender.

/** Shows the result in the button. */
export async function check() {
  const button = find("check");
  button.textContent = "Listening to ten ticks …";
  button.textContent = await measure().catch(() => "No stream came: the server cannot be reached.");
  announce(button.textContent);
}

async function measure() {
  const ticks = [];
  // Not an EventSource, which would get an event stream with `retry` instead of an error status.
  const response = await fetch(`${ROOT}/api/diagnostics/stream`);
  if (!response.ok) return `The server answered ${response.status}.`;
  for await (const event of readEvents(response.body)) {
    const sent = JSON.parse(event.data).elapsed_ms;
    if (typeof sent === "number") ticks.push({ sent, received: performance.now() });
  }
  return evaluate(ticks);
}

function evaluate(ticks) {
  if (ticks.length < 2) return "Hardly a tick came: something on the way changes the stream, or ends it.";
  const gaps = ticks.slice(1).map((tick, index) => [tick.received - ticks[index].received, tick.sent - ticks[index].sent]);
  const bunched = gaps.filter(([received, sent]) => received < MAX_BUNCHED_GAP * sent).length;
  if (bunched * 2 < gaps.length) return `All ${ticks.length} ticks came as they were sent: nothing holds streams back.`;
  return `${bunched + 1} of ${ticks.length} ticks came together: something on the way holds streams back, ` +
    "most often a proxy that buffers or compresses (nginx: proxy_buffering off).";
}
