// Renders streamed Markdown as DOM nodes, never as HTML. Finished blocks are not rendered again.
// Each block has the direction of its first letter. Nested blocks have no `dir`, as it would hide their text from `dir="auto"` of
// the outer one: https://html.spec.whatwg.org/#the-dir-attribute.

import { copyButton, make } from "./dom.js";
import { inline } from "./inline.js";

const MAX_DEPTH = 8;
const FENCE = /^ {0,3}(`{3,}(?![^`]*`)|~{3,})\s*(\S*)/;
const HEADING = /^ {0,3}(#{1,6})\s([^]*)/;
const RULE = /^ {0,3}([-*_])(?:\s*\1){2,}\s*$/;
const QUOTE = /^ {0,3}> ?/;
const ITEM = /^( *)([-*+]|\d{1,9}[.)])\s+(?=\S)/;
const DASHES = /^ *(?:\| *)?:?-+:? *(?:\| *:?-+:? *)*(?:\| *)?$/;

/** Appends Markdown to `container`; only the last block, which may still grow, is rendered again. */
export class Markdown {
  #container;
  #source = ""; // Starts with the last block.
  #node = null;
  #code = null; // The last block's text node if it is code, which is only appended to.
  #frame = 0;
  #level = 1; // The last heading's; levels are not skipped.

  constructor(container) {
    this.#container = container;
  }

  /** Renders with the next animation frame. */
  write(text) {
    this.#source += text;
    this.#frame ||= requestAnimationFrame(() => this.#show(false));
  }

  end() {
    cancelAnimationFrame(this.#frame);
    this.#show(true);
    this.#node = this.#code = null;
    this.#source = "";
  }

  #show(ended) {
    this.#frame = 0;
    const lines = this.#source.split(/\r\n?|\n/);
    const blocks = split(lines);
    // A block that starts in the last, incomplete line may turn out to belong to the previous block.
    if (!ended && blocks.length > 1 && blocks.at(-1).start === lines.length - 1) blocks.pop();
    blocks.forEach((block, index) => this.#put(block, !ended && index === blocks.length - 1));
    if (blocks.length) this.#source = lines.slice(blocks.at(-1).start).join("\n");
  }

  #put(block, open) {
    if (block.kind === "code" && this.#code) grow(this.#code, block.text);
    else this.#replace(block, open);
    if (open) return;
    this.#node = this.#code = null;
  }

  #replace(block, open) {
    const node = this.#render(block, open);
    if (this.#node) this.#node.replaceWith(node);
    else this.#container.append(node);
    this.#node = node;
    this.#code = block.kind === "code" ? node.querySelector("code").firstChild : null;
  }

  #render(block, open) {
    if (block.kind !== "heading") return withDirection(renderBlock(block, 0, open));
    const level = Math.min(block.level + 1, this.#level + 1, 6);
    if (!open) this.#level = level;
    return make(`h${level}`, { dir: "auto" }, ...inline(block.text, open));
  }
}

function withDirection(element) {
  if (!element.dir) element.dir = "auto";
  return element;
}

/** Renders a complete text. */
export function render(container, text) {
  const markdown = new Markdown(container);
  markdown.write(text);
  markdown.end();
}

function grow(node, text) {
  if (text.startsWith(node.data)) node.appendData(text.slice(node.data.length));
  else node.data = text; // A partial closing fence was taken for code.
}

/** Returns blocks, each with the index of its first line. */
function split(lines) {
  const blocks = [];
  for (let at = 0; at < lines.length; ) {
    if (!lines[at].trim()) {
      at++;
      continue;
    }
    const block = take(lines, at);
    blocks.push({ ...block, start: at });
    at = block.next;
  }
  return blocks;
}

function take(lines, at) {
  const line = lines[at];
  const fence = FENCE.exec(line);
  if (fence) return takeCode(lines, at, fence);
  const heading = HEADING.exec(line);
  if (heading) return { kind: "heading", level: heading[1].length, text: heading[2].trim().replace(/ #+$/, ""), next: at + 1 };
  if (RULE.test(line)) return { kind: "rule", next: at + 1 };
  if (QUOTE.test(line)) return takeWhile(lines, at, "quote", (line) => QUOTE.test(line));
  if (ITEM.test(line)) return takeList(lines, at);
  if (isTable(lines, at)) return takeWhile(lines, at, "table", (line) => line.includes("|"));
  return takeWhile(lines, at, "paragraph", (line, index) => line.trim() && (index === at || !interrupts(lines, index)));
}

function takeWhile(lines, at, kind, belongs) {
  let next = at + 1;
  while (next < lines.length && belongs(lines[next], next)) next++;
  return { kind, lines: lines.slice(at, next), next };
}

function interrupts(lines, at) {
  const line = lines[at];
  return [FENCE, HEADING, RULE, QUOTE].some((start) => start.test(line)) || /^ *([-*+]|1[.)])\s+\S/.test(line) || isTable(lines, at);
}

function isTable(lines, at) {
  return lines[at].includes("|") && DASHES.test(lines[at + 1] ?? "");
}

function takeCode(lines, at, [, mark, language]) {
  const indent = lines[at].indexOf(mark);
  const ends = (line) => line.trim().length >= mark.length && line.trim() === mark[0].repeat(line.trim().length);
  let next = at + 1;
  while (next < lines.length && !ends(lines[next])) next++;
  const content = lines.slice(at + 1, next).map((line) => (line.slice(0, indent).trim() ? line : line.slice(indent)));
  return { kind: "code", language, text: content.join("\n"), next: next + 1 };
}

function takeList(lines, at) {
  const [, { length: indent }, mark] = ITEM.exec(lines[at]);
  const ordered = /\d/.test(mark);
  const items = [];
  let next = at;
  for (; next < lines.length; next++) {
    const line = lines[next];
    const item = ITEM.exec(line);
    const deeper = line.search(/\S/) > indent + 1;
    if (item && !deeper && /\d/.test(item[2]) !== ordered) break;
    if (item && !deeper) items.push({ width: item[0].length, lines: [line.slice(item[0].length)] });
    else if (line.trim() ? deeper || (lines[next - 1].trim() && !interrupts(lines, next)) : listContinues(lines[next + 1], indent, ordered))
      items.at(-1).lines.push(line.slice(Math.min(items.at(-1).width, Math.max(0, line.search(/\S/)))));
    else break;
  }
  return { kind: "list", ordered, first: parseInt(mark, 10), items: items.map((item) => item.lines), next };
}

/** Whether a list continues with `line` after a blank line. */
function listContinues(line, indent, ordered) {
  const item = ITEM.exec(line ?? "");
  return line?.search(/\S/) > indent + 1 || (item !== null && /\d/.test(item[2]) === ordered);
}

function renderBlock(block, depth, open) {
  if (block.kind === "code") return code(block);
  if (block.kind === "rule") return make("hr");
  if (block.kind === "table") return table(block.lines, open);
  if (block.kind === "heading") return make("p", {}, make("strong", {}, ...inline(block.text, open)));
  if (block.kind === "quote" && depth < MAX_DEPTH)
    return make("blockquote", {}, ...renderNested(block.lines.map((line) => line.replace(QUOTE, "")), depth, open));
  if (block.kind === "list" && depth < MAX_DEPTH) return list(block, depth, open);
  return make("p", {}, ...inline((block.lines ?? block.items.flat()).join("\n").trim(), open));
}

function renderNested(lines, depth, open) {
  return split(lines).map((block) => renderBlock(block, depth + 1, open));
}

function list({ ordered, first, items }, depth, open) {
  const start = ordered && first !== 1 ? first : null;
  return make(ordered ? "ol" : "ul", { start }, ...items.map((lines) => make("li", {}, ...renderItem(lines, depth, open))));
}

/** Renders an item's first paragraph inline, next to its marker. */
function renderItem(lines, depth, open) {
  const [first, ...rest] = split(lines);
  const others = rest.map((block) => renderBlock(block, depth + 1, open));
  if (first?.kind !== "paragraph") return first ? [renderBlock(first, depth + 1, open), ...others] : [];
  return [make("span", {}, ...inline(first.lines.join("\n").trim(), open)), ...others];
}

function code({ language, text }) {
  const element = make("code", {}, document.createTextNode(text));
  const head = make("figcaption", {}, make("span", {}, language || "code"), copyButton(() => element.textContent, "code"));
  return make("figure", { class: "code", dir: "ltr" }, head, make("pre", { tabindex: "0" }, element));
}

function table(lines, open) {
  const row = (line, cell) =>
    make("tr", {}, ...cells(line).map((text) => make(cell, cell === "th" ? { scope: "col" } : {}, ...inline(text, open))));
  const body = make("tbody", {}, ...lines.slice(2).map((line) => row(line, "td")));
  return make("div", { class: "wide", tabindex: "0" }, make("table", {}, make("thead", {}, row(lines[0], "th")), body));
}

function cells(line) {
  return line.trim().replace(/^\||\|$/g, "").split("|").map((cell) => cell.trim());
}
