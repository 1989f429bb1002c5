// Inline Markdown, within a block.

import { make } from "./dom.js";
import { attempt } from "./store.js";

const MAX_DEPTH = 8;
const MAX_LENGTH = 50_000; // Characters; a longer block is shown as plain text.
const MARK = /\\[!-/:-@[-`{-~]|`+|\*{1,3}|_{1,3}|~~|!?\[|https?:\/\//g;
const LINK = /!?\[([^[\]\n]{0,500})\]\(<?([^\s()<>]{0,2000}(?:\([^\s()<>]{0,200}\)[^\s()<>]{0,200}){0,9})>?(?: "[^"\n]{0,200}")?\)/y;
const BARE = /https?:\/\/[^\s<>"'`]*[^\s<>"'`.,;:!?*_~)\]]/y;
const TAGS = { "*": ["em"], _: ["em"], "**": ["strong"], __: ["strong"], "***": ["strong", "em"], ___: ["strong", "em"], "~~": ["s"] };

/** Returns nodes and strings, in linear time. `open`: more text may follow, so unclosed bold text is shown as bold. */
export function inline(text, open) {
  if (text.length > MAX_LENGTH) return [text];
  const stack = [{ mark: "", nodes: [] }];
  const unclosed = new Set(); // Lengths of backtick runs without a closing run.
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

/** Returns the node for a mark, and the index after it. */
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
    if (end - at === mark.length) return [make("code", { dir: "ltr" }, text.slice(start, at).replace(/^ (?=.*\S)(.*) $/, "$1")), end];
    at = end;
  }
  unclosed.add(mark.length);
  return [mark, start];
}

function link(text, index) {
  LINK.lastIndex = index;
  const [match, label, address] = LINK.exec(text) ?? [];
  const anchor = match && linkTo(address, label || address);
  return anchor && [anchor, index + match.length];
}

function bare(text, index) {
  BARE.lastIndex = index;
  const address = BARE.exec(text)?.[0] ?? "http";
  return [linkTo(address, address) ?? address, index + address.length];
}

/** Links to http, https and mailto only; `javascript:` and others stay text. */
function linkTo(address, label) {
  const href = /^(https?:\/\/|mailto:)/i.test(address) && attempt(() => new URL(address).href);
  if (!href) return null;
  const dir = label === address && "ltr";
  return make("a", { href, rel: "noopener noreferrer", target: "_blank", dir }, label);
}

/** Opens or closes a level of emphasis. Returns the mark as text if it does neither. */
function emphasis(text, mark, index, stack) {
  const before = text[index - 1] ?? " ";
  const after = text[index + mark.length] ?? " ";
  const inWord = (character) => mark[0] === "_" && /[\p{L}\p{N}]/u.test(character);
  const opened = stack.findLastIndex((level) => level.mark === mark);
  if (opened > 0 && /\S/.test(before) && !inWord(after)) {
    while (stack.length - 1 > opened) fold(stack, false);
    fold(stack, true);
  } else if (/\S/.test(after) && !inWord(before) && stack.length < MAX_DEPTH) stack.push({ mark, nodes: [] });
  else return mark;
  return "";
}

/** Merges the innermost level into its parent, as an element if closed, otherwise as the mark and its content. */
function fold(stack, closed) {
  const { mark, nodes } = stack.pop();
  const { nodes: outer } = stack.at(-1);
  if (closed) outer.push(TAGS[mark].reduceRight((inner, tag) => [make(tag, {}, ...inner)], nodes)[0]);
  else outer.push(mark, ...nodes);
}
