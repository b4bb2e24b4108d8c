// The messages of the open conversation: loads them, newest first, and goes to one of them.

import { get } from "./api.js";
import { button, find, say } from "./dom.js";
import { MessageView } from "./message.js";

const NEAR_END_PX = 120;

export class MessageList {
  constructor(element) {
    this.element = element;
    this.views = [];
  }

  /** Show no message. */
  clear(conversation) {
    this.conversation = conversation;
    this.views = [];
    this.earlier = null;
    this.element.replaceChildren();
  }

  /** Show the newest messages. Raises ApiError. */
  async loadNewest() {
    const { conversation } = this;
    const page = await conversation.newest();
    if (this.conversation !== conversation) return;
    this.prepend(page);
    this.element.scrollTop = this.element.scrollHeight;
  }

  prepend({ results, previous }) {
    const height = this.element.scrollHeight;
    const views = results.map((message) => new MessageView(message, this));
    this.views.unshift(...views);
    find(".earlier", this.element)?.remove();
    this.element.prepend(...views.map((view) => view.element));
    this.earlier = previous;
    if (previous) {
      const more = button("Earlier messages", () => this.loadEarlier(), { className: "earlier" });
      this.element.prepend(more);
      this.watch(more);
    }
    this.element.scrollTop += this.element.scrollHeight - height;
    this.refreshActions();
  }

  /** Load earlier messages when the person scrolls to their button. */
  watch(more) {
    const observer = new IntersectionObserver(([entry]) => {
      if (!more.isConnected) observer.disconnect();
      else if (entry.isIntersecting && this.scrolled) this.loadEarlier();
    }, { root: this.element });
    this.scrolled = false;
    this.element.onscrollend = () => { this.scrolled = true; };
    observer.observe(more);
  }

  async loadEarlier() {
    const { conversation, earlier } = this;
    this.earlier = null;
    if (!earlier) return false;
    const page = await get(earlier);
    if (this.conversation === conversation) this.prepend(page);
    return true;
  }

  /** Scroll to a message and mark it; loads earlier ones until it is there. */
  async goTo(hash) {
    if (!hash) return;
    while (!find(hash, this.element)) {
      if (!(await this.loadEarlier())) return say("That message is not here any more");
    }
    const element = find(hash, this.element);
    find(".found", this.element)?.classList.remove("found");
    element.classList.add("found");
    element.scrollIntoView({ block: "center" });
    element.focus({ preventScroll: true });
  }

  /** Stay at the end if the person is there. */
  grown() {
    const { element } = this;
    const below = element.scrollHeight - element.scrollTop - element.clientHeight;
    if (below < NEAR_END_PX) element.scrollTop = element.scrollHeight;
  }

  isLast(view) {
    return this.views.at(-1) === view;
  }

  refreshActions() {
    for (const view of this.views.slice(-4)) view.showActions();
  }

  addTurn(content) {
    const turn = [
      new MessageView({ role: "user", content, status: "complete" }, this),
      new MessageView({ role: "assistant", content: "", status: "streaming" }, this),
    ];
    this.views.push(...turn);
    this.element.append(...turn.map((view) => view.element));
    this.element.scrollTop = this.element.scrollHeight;
    this.refreshActions();
    return turn;
  }

  remove(...views) {
    for (const view of views) view.element.remove();
    this.views = this.views.filter((view) => !views.includes(view));
    this.refreshActions();
  }
}
