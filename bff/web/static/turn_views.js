// Draws questions and replies with their actions.

import { button, make, unseen } from "./dom.js";
import { addEditing, effective } from "./editing.js";
import { QuestionView, ReplyView } from "./transcript.js";
import { randomKey } from "./turns.js";

/**
 * @typedef {object} Actions
 * @property {(message: object, content: string) => Promise<void>} save
 * @property {(turn: object, content: string) => void} askAgain Sends an edited question.
 * @property {(turn: object, regenerate: string) => void} regenerate
 * @property {(message: object) => string[]} versions The ids of the versions of a message, itself included.
 * @property {(id: string) => void} switchTo Shows another version.
 */

/** @param {Actions} actions */
export function drawQuestion(turn, actions) {
  const view = new QuestionView(effective(turn.question));
  if (turn.question.id) {
    addEditing(turn.question, view, actions.save, actions.askAgain && ((content) => actions.askAgain(turn, content)));
    addVersions(turn.question, view, actions);
  }
  turn.questionElement = view.element;
  return view.element;
}

/** @param {Actions} actions */
export function drawReplies(turn, actions) {
  turn.replyViews = turn.replies.map((reply) => {
    const view = new ReplyView();
    view.end(effective(reply));
    addReplyActions(turn, reply, view, actions);
    return view;
  });
  return turn.replyViews.map(({ element }) => element);
}

/** @param {Actions} actions */
export function addReplyActions(turn, reply, view, actions) {
  view.addAudio(reply);
  view.showTruncated(reply);
  if (!reply.id) return;
  addEditing(reply, view, actions.save);
  view.actions.append(button("Regenerate", () => actions.regenerate(turn, randomKey()), { class: "again" }));
  addVersions(reply, view, actions);
}

/** Adds ‹ 2/3 › to a message that has other versions. */
function addVersions(message, view, { versions, switchTo }) {
  const ids = versions(message);
  if (ids.length < 2) return;
  const index = ids.indexOf(message.id);
  const to = (id, label, sign) => button(sign, () => switchTo(id), { "aria-label": label, disabled: !id });
  const position = make("span", {}, unseen("Version "), `${index + 1}/${ids.length}`);
  const buttons = [to(ids[index - 1], "Previous version", "‹"), position, to(ids[index + 1], "Next version", "›")];
  view.actions.append(make("span", { class: "versions", role: "group", "aria-label": "Versions" }, ...buttons));
}

/** The element that shows the message with this id; undefined if the turn has none. */
export function elementOf({ question, questionElement, replies, replyViews }, id) {
  if (question?.id === id) return questionElement;
  return replies.some((reply) => reply.id === id) ? replyViews.at(-1).element : undefined;
}

/** Hides or shows the replies to a question. */
export function hideReplies({ replyViews = [] }, hidden) {
  for (const { element } of replyViews) element.hidden = hidden;
}

export function remove({ questionElement, replyViews = [], pending }) {
  for (const element of [questionElement, ...replyViews.map((view) => view.element), pending?.element]) element?.remove();
}
