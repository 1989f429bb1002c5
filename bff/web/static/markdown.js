// Markdown as nodes, never as HTML: text that streams in, of which what stands is not touched again.

import { copyButton, make } from "./dom.js";
import { inline } from "./inline.js";

const DEEPEST = 8;
const FENCE = /^ {0,3}(`{3,}(?![^`]*`)|~{3,})\s*(\S*)/;
const HEADING = /^ {0,3}(#{1,6})\s([^]*)/;
const RULE = /^ {0,3}([-*_])(?:\s*\1){2,}\s*$/;
const QUOTE = /^ {0,3}> ?/;
const ITEM = /^( *)([-*+]|\d{1,9}[.)])\s+(?=\S)/;
const DASHES = /^ *(?:\| *)?:?-+:? *(?:\| *:?-+:? *)*(?:\| *)?$/;

/** Text on its way into `place`: only the last block, which may go on, is made anew. */
export class Markdown {
  #place;
  #source = ""; // From the last block on.
  #node = null;
  #code = null; // The last block's, where that is code: it only grows.
  #frame = 0;
  #level = 1; // The last heading's: no answer skips one.

  constructor(place) {
    this.#place = place;
  }

  /** Shown with the next frame, together with what else comes until then. */
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

  #show(over) {
    this.#frame = 0;
    const lines = this.#source.split(/\r\n?|\n/);
    const blocks = split(lines);
    // A block that has begun in a line that is not over might yet turn out to be none.
    if (!over && blocks.length > 1 && blocks.at(-1).start === lines.length - 1) blocks.pop();
    blocks.forEach((block, index) => this.#put(block, !over && index === blocks.length - 1));
    if (blocks.length) this.#source = lines.slice(blocks.at(-1).start).join("\n");
  }

  #put(block, open) {
    if (block.kind === "code" && this.#code) grow(this.#code, block.text);
    else this.#replace(block, open);
    if (open) return;
    this.#node = this.#code = null;
  }

  #replace(block, open) {
    const node = this.#made(block, open);
    if (this.#node) this.#node.replaceWith(node);
    else this.#place.append(node);
    this.#node = node;
    this.#code = block.kind === "code" ? node.querySelector("code").firstChild : null;
  }

  #made(block, open) {
    if (block.kind !== "heading") return made(block, 0, open);
    const level = Math.min(block.level + 1, this.#level + 1, 6);
    if (!open) this.#level = level;
    return make(`h${level}`, {}, ...inline(block.text, open));
  }
}

/** The same, at once. */
export function render(place, text) {
  const markdown = new Markdown(place);
  markdown.write(text);
  markdown.end();
}

function grow(node, text) {
  if (text.startsWith(node.data)) node.appendData(text.slice(node.data.length));
  else node.data = text; // Half a closing fence looked like code.
}

/** Blocks and the number of the line each starts with. */
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
  if (QUOTE.test(line)) return takeWhile(lines, at, "quote", (one) => QUOTE.test(one));
  if (ITEM.test(line)) return takeList(lines, at);
  if (isTable(lines, at)) return takeWhile(lines, at, "table", (one) => one.includes("|"));
  return takeWhile(lines, at, "paragraph", (one, index) => one.trim() && (index === at || !interrupts(lines, index)));
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
    else if (line.trim() ? deeper || (lines[next - 1].trim() && !interrupts(lines, next)) : goesOn(lines[next + 1], indent, ordered))
      items.at(-1).lines.push(line.slice(Math.min(items.at(-1).width, Math.max(0, line.search(/\S/)))));
    else break;
  }
  return { kind: "list", ordered, first: parseInt(mark, 10), items: items.map((item) => item.lines), next };
}

/** Whether a list does, after a blank line. */
function goesOn(line, indent, ordered) {
  const item = ITEM.exec(line ?? "");
  return line?.search(/\S/) > indent + 1 || (item !== null && /\d/.test(item[2]) === ordered);
}

function made(block, depth, open) {
  if (block.kind === "code") return code(block);
  if (block.kind === "rule") return make("hr");
  if (block.kind === "table") return table(block.lines, open);
  if (block.kind === "heading") return make("p", {}, make("strong", {}, ...inline(block.text, open)));
  if (block.kind === "quote" && depth < DEEPEST)
    return make("blockquote", {}, ...inside(block.lines.map((line) => line.replace(QUOTE, "")), depth, open));
  if (block.kind === "list" && depth < DEEPEST) return list(block, depth, open);
  return make("p", {}, ...inline((block.lines ?? block.items.flat()).join("\n").trim(), open));
}

function inside(lines, depth, open) {
  return split(lines).map((block) => made(block, depth + 1, open));
}

function list({ ordered, first, items }, depth, open) {
  const start = ordered && first !== 1 ? first : null;
  return make(ordered ? "ol" : "ul", { start }, ...items.map((lines) => make("li", {}, ...tight(lines, depth, open))));
}

/** An item's first paragraph stands beside its mark. */
function tight(lines, depth, open) {
  const [first, ...rest] = split(lines);
  const others = rest.map((block) => made(block, depth + 1, open));
  if (first?.kind !== "paragraph") return first ? [made(first, depth + 1, open), ...others] : [];
  return [make("span", {}, ...inline(first.lines.join("\n").trim(), open)), ...others];
}

function code({ language, text }) {
  const place = make("code", {}, document.createTextNode(text));
  const head = make("figcaption", {}, make("span", {}, language || "code"), copyButton(() => place.textContent, "code"));
  return make("figure", { class: "code" }, head, make("pre", { tabindex: "0" }, place));
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
