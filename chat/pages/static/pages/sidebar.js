// The list of conversations, and the search in what was said.

import { get, words } from "./api.js";
import { Conversation } from "./conversation.js";
import { button, dateOf, find, firstLine, h } from "./dom.js";

const KINDS = { chat: "Chats", passage: "Passages" };
const PAGE_SIZE = 50;

export const titleOf = ({ title, reference }) => title || reference || "New conversation";

/** `onOpen(address)` is called when a conversation or a found message is chosen. */
export class Sidebar {
  constructor(navigation, found, onOpen) {
    this.navigation = navigation;
    this.found = found;
    this.lists = Object.fromEntries(Object.keys(KINDS).map((kind) => [kind, h("ul")]));
    for (const container of [navigation, found]) {
      container.addEventListener("click", (event) => {
        const link = event.target.closest("a[href]");
        if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
        event.preventDefault();
        onOpen(link.getAttribute("href"));
      });
    }
    navigation.addEventListener("keydown", (event) => this.moveFocus(event));
  }

  async load() {
    for (const [kind, name] of Object.entries(KINDS)) {
      const list = this.lists[kind];
      this.navigation.append(h("h2", {}, name), list);
    }
    await Promise.all(Object.keys(KINDS).map((kind) =>
      this.more(kind, `/api/${kind}s/?page_size=${PAGE_SIZE}`)));
  }

  async more(kind, url) {
    const { results, next } = await get(url);
    const list = this.lists[kind];
    list.append(...results.map((item) => this.item(kind, item)));
    if (next) {
      const entry = h("li", {}, button(`More ${KINDS[kind].toLowerCase()}`, async () => {
        entry.remove();
        await this.more(kind, next);
      }));
      list.append(entry);
    }
    this.mark(this.current);
  }

  item(kind, item) {
    const link = h("a", { href: new Conversation(kind, item.id).page }, titleOf(item));
    return h("li", {}, link);
  }

  linkOf(conversation) {
    return conversation && find(`a[href="${conversation.page}"]`, this.navigation);
  }

  /** Show at the top a conversation that was made just now. */
  add(kind, item) {
    this.lists[kind].prepend(this.item(kind, item));
  }

  rename(conversation, title) {
    const link = this.linkOf(conversation);
    if (link) link.textContent = title;
  }

  remove(conversation) {
    this.linkOf(conversation)?.parentElement.remove();
  }

  /** Mark the open conversation. */
  mark(conversation) {
    this.current = conversation;
    find("[aria-current]", this.navigation)?.removeAttribute("aria-current");
    this.linkOf(conversation)?.setAttribute("aria-current", "page");
  }

  /** Arrow keys go through the list. */
  moveFocus(event) {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!step) return;
    const stops = [...this.navigation.querySelectorAll("a, button")];
    stops[stops.indexOf(document.activeElement) + step]?.focus();
    event.preventDefault();
  }

  /** The search that answers use; an empty text closes the results. */
  async search(text) {
    this.found.hidden = !text.trim();
    if (this.found.hidden) return this.found.replaceChildren();
    try {
      const { results } = await get(`/api/memory/search/?limit=20&q=${encodeURIComponent(text)}`);
      this.found.replaceChildren(h("h2", {}, results.length ? "Found" : "Nothing found"),
        h("ul", {}, ...results.map(foundItem)));
    } catch (error) {
      this.found.replaceChildren(h("p", { className: "error", role: "alert" }, words(error)));
    }
  }
}

function foundItem({ source, message_id, content, created_at }) {
  const href = `${new Conversation(source.kind, source.id).page}#message-${message_id}`;
  return h("li", {}, h("a", { href }, h("span", {}, firstLine(content, 100)),
    h("small", {}, `${source.title}, ${dateOf(created_at)}`)));
}
