// One message on the page: what it shows, and its buttons.

import { find, fromTemplate, sentence } from "./dom.js";
import { showMarkdown } from "./markdown.js";
import { memoryCard } from "./memories.js";
import { tell } from "./problems.js";

const PARTS = "who content reasoning thoughts note card actions".split(" ");

export class MessageView {
  /** `list` is message_list.js's. */
  constructor(message, list) {
    this.list = list;
    this.isMine = message.role === "user";
    this.element = fromTemplate("message-frame");
    this.element.classList.add(message.role);
    for (const part of PARTS) this[part] = find(`.${part}`, this.element);
    this.who.textContent = this.isMine ? "You" : "Verse";
    this.set(message);
  }

  set(message) {
    this.message = message;
    if (message.id) this.element.id = `message-${message.id}`;
    this.setText(message.content);
    this.setMemories(message.context);
    this.setStatus(message.status, sentence(message.finish_reason));
  }

  setText(text) {
    this.message.content = text;
    if (this.isMine) this.content.textContent = text;
    else showMarkdown(this.content, text);
  }

  append(text) {
    this.message.content += text;
    this.drawing ??= requestAnimationFrame(() => {
      this.drawing = null;
      this.list.grow(() => showMarkdown(this.content, this.message.content));
    });
  }

  /** "" begins again. */
  think(text) {
    this.reasoning.hidden = !text;
    if (text) this.thoughts.append(text);
    else this.thoughts.replaceChildren();
  }

  setMemories(memories) {
    this.card.replaceChildren(memoryCard(memories, this.list.memoryChanged));
  }

  /** With a problem, it can be tried again. */
  setStatus(status, note, problem) {
    Object.assign(this.message, { status });
    this.problem = problem;
    this.element.setAttribute("aria-busy", status === "streaming");
    tell(this.note, problem ?? note ?? sentence(status) ?? "");
    this.showActions();
  }

  showActions() {
    const { status, id } = this.message;
    const isWhole = status !== "streaming";
    const isLastAnswer = isWhole && !this.isMine && this.list.isLast(this);
    const shown = {
      copy: id && isWhole,
      edit: id && this.isMine,
      tryAgain: isLastAnswer && (status === "failed" || this.problem),
      regenerate: id && isLastAnswer,
      forget: id && isWhole,
    };
    for (const button of this.actions.children) button.hidden = !shown[button.dataset.do];
  }
}
