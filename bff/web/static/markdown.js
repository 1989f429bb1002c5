// Markdown as nodes, never as HTML: text that streams in, of which what stands is not touched again.

import { copyButton, make } from "./dom.js";

const DEEPEST = 8;
const LONGEST = 50_000; // Characters; what is longer, in one block, is no prose.
const FENCE = /^ {0,3}(`{3,}|~{3,})\s*([^\s`]*)[^`]*$/;
const HEADING = /^ {0,3}(#{1,6})\s+(.*)$/;
const RULE = /^ {0,3}([-*_])(?:\s*\1){2,}\s*$/;
const QUOTE = /^ {0,3}> ?/;
const ITEM = /^( *)([-*+]|\d{1,9}[.)])\s+(?=\S)/;
const DASHES = /^ *\|? *:?-+:? *(?:\| *:?-+:? *)*\|? *$/;
const MARK = /\\[!-/:-@[-`{-~]|`+|\*{1,3}|_{1,3}|~~|!?\[|https?:\/\//g;
const LINK = /!?\[([^[\]\n]{0,500})\]\(<?([^\s()<>]{0,2000}(?:\([^\s()<>]{0,200}\)[^\s()<>]{0,200}){0,9})>?(?: "[^"\n]{0,200}")?\)/y;
const BARE = /https?:\/\/[^\s<>"'`]+/y;
const TAGS = { "*": ["em"], _: ["em"], "**": ["strong"], __: ["strong"], "***": ["strong", "em"], ___: ["strong", "em"], "~~": ["s"] };

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
  return lines[at].includes("|") && DASHES.test(lines[at + 1] ?? "") && lines[at + 1].includes("-");
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

/** Nodes and strings. In time that grows with the text's length: nothing is looked for twice. */
function inline(text, open) {
  if (text.length > LONGEST) return [text];
  const stack = [{ mark: "", nodes: [] }];
  const unclosed = new Set(); // Lengths of runs of backticks that nothing closes.
  const put = (node) => node !== "" && stack.at(-1).nodes.push(node);
  const mark = new RegExp(MARK);
  let at = 0;
  for (let found = mark.exec(text); found; found = mark.exec(text)) {
    put(text.slice(at, found.index));
    const [node, end] = special(text, found, stack, unclosed);
    put(node);
    at = mark.lastIndex = end;
  }
  put(text.slice(at));
  while (stack.length > 1) fold(stack, open && stack.at(-1).mark === "**" && stack.at(-1).nodes.length > 0);
  return stack[0].nodes;
}

/** What a mark makes, and where the text goes on. */
function special(text, { 0: mark, index }, stack, unclosed) {
  const end = index + mark.length;
  if (mark[0] === "\\") return [mark[1], end];
  if (mark[0] === "`") return inlineCode(text, mark, end, unclosed);
  if (mark.endsWith("[")) return link(text, index) ?? [mark, end];
  if (mark.startsWith("http")) return bare(text, index);
  return [emphasis(text, mark, index, stack), end];
}

function inlineCode(text, mark, start, unclosed) {
  for (let at = unclosed.has(mark.length) ? -1 : text.indexOf(mark, start); at >= 0; at = text.indexOf(mark, at)) {
    let end = at;
    while (text[end] === "`") end++;
    if (end - at === mark.length) return [make("code", {}, text.slice(start, at).replace(/^ (.*\S.*) $/, "$1")), end];
    at = end;
  }
  unclosed.add(mark.length);
  return [mark, start];
}

function link(text, index) {
  LINK.lastIndex = index;
  const [whole, label, address] = LINK.exec(text) ?? [];
  const anchor = whole && linkTo(address, label || address);
  return anchor && [anchor, index + whole.length];
}

function bare(text, index) {
  BARE.lastIndex = index;
  const address = (BARE.exec(text)?.[0] ?? text.slice(index, index + 4)).replace(/[.,;:!?*_~)\]]+$/, "");
  return [linkTo(address, address) ?? address, index + address.length];
}

/** Nowhere but to the web and to mail: `javascript:` and its like stay text. */
function linkTo(address, label) {
  if (!/^(https?:\/\/|mailto:)/i.test(address) || !URL.canParse(address)) return null;
  return make("a", { href: new URL(address).href, rel: "noopener noreferrer", target: "_blank" }, label);
}

/** Opens a level or closes one; a mark that does neither is text. */
function emphasis(text, mark, index, stack) {
  const before = text[index - 1] ?? " ";
  const after = text[index + mark.length] ?? " ";
  const inWord = (character) => mark[0] === "_" && /[\p{L}\p{N}]/u.test(character);
  const opened = stack.findLastIndex((level) => level.mark === mark);
  if (opened > 0 && /\S/.test(before) && !inWord(after)) {
    while (stack.length - 1 > opened) fold(stack, false);
    fold(stack, true);
  } else if (/\S/.test(after) && !inWord(before) && stack.length < DEEPEST) stack.push({ mark, nodes: [] });
  else return mark;
  return "";
}

/** The innermost level becomes a part of the one around it: an element, or its mark and what followed that. */
function fold(stack, closed) {
  const { mark, nodes } = stack.pop();
  const { nodes: outer } = stack.at(-1);
  if (closed) outer.push(TAGS[mark].reduceRight((inner, tag) => [make(tag, {}, ...inner)], nodes)[0]);
  else outer.push(mark, ...nodes);
}
