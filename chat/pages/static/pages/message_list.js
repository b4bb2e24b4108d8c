// The messages of the open conversation.

import { find, say } from "./dom.js";
import { MessageView } from "./message.js";

const NEAR_PX = 120;  // so near to the end, one stays there
const EARLY_PX = 2000;  // so near to the first, earlier ones are loaded
const element = find("#thread");
const more = find("#earlier");
const list = { isLast: (view) => views.at(-1) === view, grow, memoryChanged };
export let conversation = null;
export let views = [];
let earlier;  // the page before the first message, or null

element.addEventListener("scroll", () => {
  if (earlier && element.scrollTop < EARLY_PX) loadEarlier().catch(() => {});
});

export function clear(next) {
  conversation?.left.abort();
  conversation = next;
  views = [];
  earlier = null;
  element.replaceChildren();
}

export async function loadNewest() {
  prepend(await conversation.newest());
  toEnd();
}

function toEnd() {
  element.scrollTop = element.scrollHeight;
}

/** What one reads stays in its place. */
function prepend({ results, previous }) {
  const below = element.scrollHeight - element.scrollTop;
  const added = results.map((message) => new MessageView(message, list));
  views.unshift(...added);
  earlier = previous;
  more.remove();
  element.prepend(...(earlier ? [more] : []), ...added.map((view) => view.element));
  element.scrollTop = element.scrollHeight - below;
  refreshActions();
}

/** Whether there are any. Raises ApiError. */
export function loadEarlier() {
  const opened = conversation;
  opened.loading ??= (async () => {
    if (!earlier) return false;
    prepend(await opened.get(earlier));
    return true;
  })().finally(() => { opened.loading = null; });
  return opened.loading;
}

/** Show a message; loads earlier ones until it is there. */
export async function goTo(hash) {
  if (!/^#message-\d+$/.test(hash)) return;
  const target = () => find(hash, element);
  while (!target()) {
    if (!(await loadEarlier())) return say("That message is not here any more");
  }
  find(".found", element)?.classList.remove("found");
  target().classList.add("found");
  target().scrollIntoView({ block: "center" });
  target().focus({ preventScroll: true });
}

/** Who reads at the end stays there. */
function grow(change) {
  const { scrollHeight, scrollTop, clientHeight } = element;
  change();
  if (scrollHeight - scrollTop - clientHeight < NEAR_PX) toEnd();
}

function refreshActions() {
  for (const view of views.slice(-4)) view.showActions();
}

/** The view of the answer to come to `sent`. */
export function addTurn(sent) {
  const question = new MessageView({ role: "user", content: sent.content }, list);
  const answer = new MessageView({ role: "assistant", content: "" }, list);
  views.push(question, answer);
  element.append(question.element, answer.element);
  toEnd();
  refreshActions();
  return Object.assign(answer, { question, sent });
}

export function remove(...deleted) {
  for (const view of deleted) view.element.remove();
  views = views.filter((view) => !deleted.includes(view));
  refreshActions();
}

/** In a card: show it where the message itself stands. */
function memoryChanged({ source, message_id }, content) {
  if (conversation.kind !== source.kind || conversation.id !== source.id) return;
  const view = views.find(({ message }) => message.id === message_id);
  if (view && content === null) remove(view);
  else view?.setText(content);
}
