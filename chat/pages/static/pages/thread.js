// The open conversation: sends messages, shows answers, edits and forgets.

import { events } from "./api.js";
import { giveBack } from "./composer.js";
import { newKey } from "./conversation.js";
import * as dialogs from "./dialogs.js";
import { copy, find, say, sentence } from "./dom.js";
import { keep, kept } from "./drafts.js";
import { addTurn, clear, conversation, goTo, loadNewest, remove, views } from "./message_list.js";
import { attempt } from "./problems.js";

const RETRY_MS = 1500;
let onState, onChange;

/** `stateChanged(isAnswering)`; `textChanged()` after an edit, or once forgotten. */
export function connectThread(stateChanged, textChanged) {
  onState = stateChanged;
  onChange = textChanged;
  find("#thread").addEventListener("click", ({ target }) => {
    const view = views.find(({ actions }) => actions.contains(target));
    if (view) attempt(view.note, () => ACTIONS[target.dataset.do]?.(view));
  });
}

/** Show a conversation, or none, at the hash's message. Raises ApiError. */
export async function open(next) {
  clear(next);
  onState(false);
  if (!next) return;
  await loadNewest();
  resume();
  await goTo(location.hash);
}

/** Go on with an answer, or offer a message again that may not be stored. */
function resume() {
  const [question, answer] = views.slice(-2);
  const sent = kept("sent", conversation.page);
  const isStored = views.some(({ message }) => isOf(sent, message));
  if (answer?.message.status === "streaming") {
    run(Object.assign(answer, { question }), "follow", answer.message.id);
  } else if (sent && !isStored) fail(addTurn(sent), sentence("unsent"));
  else if (answer?.message.status === "complete") keep("sent", conversation.page, null);
}

const isOf = (sent, { role, content, id }) =>
  role === "user" && content === sent?.content && id > (sent.after ?? 0);

/** What was sent last is not offered again. */
function changed(view) {
  if (views.slice(-2).includes(view)) keep("sent", conversation.page, null);
  onChange();
}

/** One that was not sent goes back to the box. Raises ApiError: nothing is stored. */
export async function send(content) {
  const { page } = conversation;
  const [unsent, failed] = views.slice(-2);
  const back = unsent && !unsent.message.id && (await takeBack(unsent, failed));
  const last = views.findLast(({ message }) => message.id);
  const sent = { key: newKey(), content, after: last?.message.id };
  keep("sent", page, sent);
  keep("draft", page, null);
  giveBack(page, back);
  const answer = addTurn(sent);
  try {
    await generate(answer, "ask", content, sent.key);
  } catch (error) {
    if (!/^4/.test(error.status)) return fail(answer, error);
    keep("sent", page, null);
    remove(answer.question, answer);
    throw error;
  }
}

/** Remove a turn that is not stored; its text. Raises ApiError. */
async function takeBack(question, answer) {
  const { results } = await conversation.newest();
  const at = placeOf(answer, results);
  if (at < 0) {
    remove(question, answer);
    return question.message.content;
  }
  question.set(results[at]);
  if (results[at + 1]) answer.set(results[at + 1]);
}

const run = (answer, ...call) =>
  generate(answer, ...call).catch((error) => fail(answer, error));

/** Show the answer that a method of the conversation gives. */
async function generate(answer, method, ...values) {
  const opened = conversation;
  answer.setStatus("streaming");
  onState(true);
  try {
    const response = await opened[method](...values);
    await read(opened, response, answer).catch((error) => fail(answer, error));
  } finally {
    if (opened === conversation) onState(false);
  }
}

/** Show a turn's events; if they break off, what is stored. */
async function read(opened, response, answer) {
  answer.setText("");
  answer.think("");
  let problem;
  try {
    for await (const { name, data } of events(response, opened.left.signal)) {
      if (name === "context") {
        answer.question?.set(data.user_message);
        answer.setMemories(data.context);
      } else if (name === "reasoning") answer.think(data.text);
      else if (name === "delta") answer.append(data.text);
      else if (name === "done") return finish(opened, answer, data.assistant_message);
      else problem = data.detail;
    }
  } catch (error) {
    if (!(error instanceof TypeError)) throw error; // TypeError: the connection broke
  }
  await rejoin(opened, answer, problem);
}

function finish(opened, answer, message) {
  keep("sent", opened.page, null);
  answer.set(message);
  say("Answer complete");
}

/** Show the turn as it is stored, once the server can be reached. */
async function rejoin(opened, answer, problem) {
  const page = await opened.newest().catch((error) => error);
  opened.left.signal.throwIfAborted();
  if (page.code === "offline") {
    answer.setStatus("streaming", "", page);
    await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
    return rejoin(opened, answer, problem);
  }
  if (page instanceof Error) throw page;
  const at = placeOf(answer, page.results);
  const [question, stored] = page.results.slice(at < 0 ? -2 : at);
  if (stored?.role !== "assistant") return fail(answer, problem ?? "It was not stored.");
  answer.question?.set(question);
  answer.set(stored);
  if (problem) return fail(answer, problem);
  if (stored.status !== "streaming") return finish(opened, answer, stored);
  await read(opened, await opened.follow(stored.id), answer);
}

/** The turn's question, not another tab's; -1 if it is not stored. */
const placeOf = ({ question, sent }, results) =>
  results.findIndex((message) => message.id === question?.message.id || isOf(sent, message));

function fail(answer, problem) {
  if (problem.name === "AbortError") return; // the page shows another conversation
  answer.setStatus(answer.message.content ? "interrupted" : "failed", "", problem);
  say(answer.note.textContent);
}

export async function stop() {
  const { results } = await conversation.newest();
  const running = results.findLast(({ status }) => status === "streaming");
  if (running) await conversation.stop(running.id);
}

const regenerate = (answer) => run(answer, "regenerate", answer.message.id);

const ACTIONS = {
  copy: ({ message }) => copy(message.content),

  regenerate,

  /** Under the same key: it is not stored twice. */
  tryAgain(answer) {
    const sent = answer.sent ?? kept("sent", conversation.page);
    const question = views.at(-2);
    if (sent?.content !== question?.message.content) return regenerate(answer);
    answer.question = question;
    return run(answer, "ask", sent.content, sent.key);
  },

  async edit(view) {
    const isLast = views.at(-2) === view;
    const values = await dialogs.edit(conversation, view.message, isLast);
    if (!values) return;
    view.setText(values.content);
    changed(view);
    if (values.action === "again") regenerate(views.at(-1));
  },

  async forget(view) {
    const deletion = () => conversation.forget(view.message.id);
    if (!(await dialogs.remove("forget-message", deletion))) return;
    changed(view);
    remove(view);
  },
};
