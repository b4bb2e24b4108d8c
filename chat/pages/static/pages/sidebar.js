// The list of conversations.

import { get } from "./api.js";
import { Conversation } from "./conversation.js";
import { button, find, h } from "./dom.js";
import { conversation } from "./message_list.js";
import { attempt } from "./problems.js";

export const titleOf = ({ title, reference }) => title || reference || "New conversation";

const navigation = find("#conversations");
const listOf = (kind) => find(`#${kind}s`);
const linkTo = (page) => find(`a[href="${page}"]`, navigation);
export const currentLink = () => conversation && linkTo(conversation.page);

export const load = () =>
  Promise.all(["chat", "passage"].map((kind) => more(kind, `/api/${kind}s/?page_size=50`)));

async function more(kind, url) {
  const { results, next } = await get(url);
  const list = listOf(kind);
  list.append(...results.map((item) => entry(kind, item)).filter(isNew));
  const onMore = async ({ target }) => {
    const loaded = await attempt(find("#trouble"), () => more(kind, next));
    if (loaded) target.parentElement.remove();
  };
  if (next) list.append(h("li", {}, button(`More ${kind}s`, onMore)));
  mark();
}

const isNew = ({ firstChild }) => !linkTo(firstChild.getAttribute("href"));

const entry = (kind, item) => h("li", {},
  h("a", { href: new Conversation(kind, item.id).page, dir: "auto" }, titleOf(item)));

export const add = (kind, item) => listOf(kind).prepend(entry(kind, item));

export function mark() {
  find("[aria-current]", navigation)?.removeAttribute("aria-current");
  currentLink()?.setAttribute("aria-current", "page");
}
