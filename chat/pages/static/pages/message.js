// One message on the page: what it shows, and its buttons.

import { button, copy, h, show } from "./dom.js";
import { showMarkdown } from "./markdown.js";
import { memoryCard } from "./memories.js";

const NOTES = {
  length: "The model stopped here because the answer reached its greatest length.",
  content_filter: "The model's server cut the answer by its content filter.",
  interrupted: "This answer was stopped before its end.",
  failed: "There is no answer.",
};

/** A message, its element, and the thread that it stands in. */
export class MessageView {
  constructor(message, thread) {
    this.thread = thread;
    this.isMine = message.role === "user";
    this.body = h("div", { className: "content" });
    this.thoughts = h("div", { className: "thoughts" });
    this.reasoning = h("details", { className: "reasoning", hidden: true },
      h("summary", {}, "Reasoning"), this.thoughts);
    this.card = h("div");
    this.note = h("p", { className: "note", hidden: true });
    this.actions = h("div", { className: "actions" });
    this.element = h("article", { tabIndex: -1, className: `message ${message.role}` },
      h("h2", { className: "who" }, this.isMine ? "You" : "Verse"),
      this.reasoning, this.body, this.note, this.card, this.actions);
    this.set(message);
  }

  get id() {
    return this.message.id;
  }

  /** Show the message as the API gives it. */
  set(message) {
    this.message = message;
    if (message.id) this.element.id = `message-${message.id}`;
    this.setText(message.content);
    if (message.context) this.setMemories(message.context);
    this.setStatus(message.status, message.finish_reason);
  }

  setText(text) {
    this.message.content = text;
    if (this.isMine) this.body.textContent = text;
    else this.drawing ??= requestAnimationFrame(() => {
      this.drawing = null;
      showMarkdown(this.body, this.message.content);
      this.thread.grown();
    });
  }

  append(text) {
    this.setText(this.message.content + text);
  }

  /** What a reasoning model thinks: shown while it comes, kept nowhere. */
  think(text) {
    this.reasoning.hidden = false;
    this.thoughts.append(text);
  }

  setMemories(memories) {
    const changed = (memory, content) => this.thread.memoryChanged(memory, content);
    this.card.replaceChildren(...[memoryCard(memories, changed)].filter(Boolean));
  }

  setStatus(status, finishReason, problem) {
    Object.assign(this.message, { status });
    this.problem = problem;
    this.element.setAttribute("aria-busy", status === "streaming");
    show(this.note, problem ?? NOTES[finishReason] ?? NOTES[status] ?? "");
    this.showActions();
  }

  tell = (problem) => show(this.note, problem);

  showActions() {
    const { thread, message, isMine } = this;
    const isLastAnswer = !isMine && thread.isLast(this);
    const again = isLastAnswer && (message.status === "failed" || this.problem);
    const isStored = message.id && message.status !== "streaming";
    this.actions.replaceChildren(...[
      isStored && button("Copy", () => copy(message.content)),
      isStored && isMine && button("Edit", () => thread.edit(this)),
      message.status !== "streaming" && again && button("Try again", () => thread.tryAgain(this)),
      isStored && isLastAnswer && button("Regenerate", () => thread.regenerate(this)),
      isStored && button("Forget", () => thread.forget(this)),
    ].filter(Boolean));
  }
}
