// Markdown within a block.

import { make } from "./dom.js";

const DEEPEST = 8;
const LONGEST = 50_000; // Characters; what is longer, in one block, is no prose.
const MARK = /\\[!-/:-@[-`{-~]|`+|\*{1,3}|_{1,3}|~~|!?\[|https?:\/\//g;
const LINK = /!?\[([^[\]\n]{0,500})\]\(<?([^\s()<>]{0,2000}(?:\([^\s()<>]{0,200}\)[^\s()<>]{0,200}){0,9})>?(?: "[^"\n]{0,200}")?\)/y;
const BARE = /https?:\/\/[^\s<>"'`]*[^\s<>"'`.,;:!?*_~)\]]/y;
const TAGS = { "*": ["em"], _: ["em"], "**": ["strong"], __: ["strong"], "***": ["strong", "em"], ___: ["strong", "em"], "~~": ["s"] };

/** Nodes and strings. In time that grows with the text's length: nothing is looked for twice. */
export function inline(text, open) {
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
    if (end - at === mark.length) return [make("code", {}, text.slice(start, at).replace(/^ (?=.*\S)(.*) $/, "$1")), end];
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
  const address = BARE.exec(text)?.[0] ?? "http";
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
