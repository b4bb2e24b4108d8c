// The open conversation: sends messages, shows answers as they come, edits and forgets.

import { words } from "./api.js";
import { edit, forget } from "./changes.js";
import { newKey } from "./conversation.js";
import { say } from "./dom.js";
import { keepUnanswered, unansweredOf } from "./drafts.js";
import { events } from "./event_stream.js";
import { MessageList } from "./message_list.js";

const RETRY_MS = 1500;

export class Thread extends MessageList {
  /** `onState(answering)` is called when an answer begins and when it ends. */
  constructor(element, onState) {
    super(element);
    this.onState = onState;
  }

  /** Show a conversation, or none; a new one has no messages to load. Goes to the message of the
      address's hash. Raises ApiError. */
  async open(conversation, { isNew = false } = {}) {
    this.clear(conversation);
    if (this.answering) this.end(this.answering);
    if (!conversation || isNew) return;
    await this.loadNewest();
    if (this.conversation !== conversation) return;
    this.resume();
    await this.goTo(/^#message-\d+$/.exec(location.hash)?.[0]);
  }

  /** Go on with an answer that is on its way, or offer a message again that may not be stored. */
  resume() {
    const last = this.views.at(-1);
    const sent = unansweredOf(this.conversation.page);
    if (last?.message.status === "streaming") this.follow(last);
    else if (sent && this.views.at(-2)?.message.content !== sent.content) {
      this.fail(this.addTurn(sent.content)[1], "This message may not have been sent.");
    }
  }

  /** Send a message. Raises ApiError if it was refused: nothing is stored then. */
  async send(content) {
    const { conversation } = this;
    const sent = { key: newKey(), content };
    keepUnanswered(conversation.page, sent);
    const [question, answer] = this.addTurn(content);
    try {
      await this.generate(answer, question, () => conversation.ask(content, sent.key));
    } catch (error) {
      if (error.status < 400 || error.status >= 500) return this.fail(answer, words(error));
      keepUnanswered(conversation.page, null);
      this.remove(question, answer);
      throw error;
    }
  }

  /** Show the answer that a request gives. Raises ApiError if the request is refused. */
  async generate(answer, question, request) {
    answer.setStatus("streaming");
    this.answering = answer;
    this.onState(true);
    try {
      const response = await request();
      answer.setText("");
      await this.read(response, question, answer).catch((error) => this.fail(answer, words(error)));
    } finally {
      this.end(answer);
    }
  }

  end(answer) {
    if (this.answering !== answer) return;
    this.answering = null;
    this.onState(false);
    this.refreshActions();
  }

  /** Show a turn's events until its end; if the connection breaks, go on with what is stored. */
  async read(response, question, answer) {
    try {
      for await (const { name, data } of events(response)) {
        if (name === "context") {
          question?.set(data.user_message);
          answer.setMemories(data.context);
        } else if (name === "reasoning") answer.think(data.text);
        else if (name === "delta") answer.append(data.text);
        else if (name === "done") return this.finish(answer, data.assistant_message);
        else if (name === "error") return await this.rejoin(question, answer, data.detail);
      }
    } catch (error) {
      if (!(error instanceof TypeError)) throw error; // TypeError: the connection broke
    }
    await this.rejoin(question, answer);
  }

  finish(answer, message) {
    keepUnanswered(this.conversation.page, null);
    answer.set(message);
    say("Answer complete");
  }

  /** The stored turn: its end, with `problem` if there is one; an answer still on its way is
      followed. Waits for the server to be back. */
  async rejoin(question, answer, problem) {
    const { conversation } = this;
    const page = await conversation.newest().catch((error) => error);
    if (this.conversation !== conversation) return;
    if (page.code === "offline") {
      answer.setStatus("streaming", null, words(page));
      await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
      return this.rejoin(question, answer, problem);
    }
    if (page instanceof Error) throw page;
    const [asked, stored] = page.results.slice(-2);
    if (stored?.role !== "assistant") return this.fail(answer, problem ?? "It was not stored.");
    question?.set(asked);
    answer.set(stored);
    if (problem) return this.fail(answer, problem);
    if (stored.status !== "streaming") return this.finish(answer, stored);
    answer.setText("");
    await this.read(await conversation.follow(stored.id), null, answer);
  }

  fail(answer, problem) {
    answer.setStatus(answer.message.content ? "interrupted" : "failed", null, problem);
    say(problem);
  }

  follow(answer) {
    const { conversation } = this;
    return this.tell(answer, this.generate(answer, null, () => conversation.follow(answer.id)));
  }

  regenerate(answer) {
    const { conversation } = this;
    const request = () => conversation.regenerate(answer.id, newKey());
    return this.tell(answer, this.generate(answer, null, request));
  }

  /** The same message again, under its key: if it was stored, it is not stored twice. */
  tryAgain(answer) {
    const { conversation } = this;
    const sent = unansweredOf(conversation.page);
    const question = this.views[this.views.indexOf(answer) - 1];
    if (sent?.content !== question?.message.content) return this.regenerate(answer);
    const request = () => conversation.ask(sent.content, sent.key);
    return this.tell(answer, this.generate(answer, question, request));
  }

  tell = (answer, promise) => promise.catch((error) => this.fail(answer, words(error)));

  async stop() {
    const { results } = await this.conversation.newest();
    const running = results.findLast((message) => message.status === "streaming");
    if (running) await this.conversation.stop(running.id);
  }

  /** Edit an own message; the last question can be asked again with it. */
  async edit(view) {
    const isLastQuestion = this.views.at(-2) === view;
    const actions = isLastQuestion ? ["Save and ask again", "Save"] : ["Save"];
    const { content } = view.message;
    const values = await edit(this.conversation, view.id, content, view.tell, actions);
    if (!values) return;
    view.setText(values.content);
    if (values.action !== "Save") this.regenerate(this.views.at(-1));
  }

  async forget(view) {
    if (await forget(this.conversation, view.id, "this conversation", view.tell)) this.remove(view);
  }

  /** A memory was edited or forgotten in a card: show that where the message itself stands. */
  memoryChanged(memory, content) {
    const { kind, id } = memory.source;
    if (this.conversation?.kind !== kind || this.conversation.id !== id) return;
    const view = this.views.find((other) => other.id === memory.message_id);
    if (view && content === null) this.remove(view);
    else view?.setText(content);
  }
}
