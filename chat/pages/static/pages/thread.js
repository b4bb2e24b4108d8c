// The open conversation: sends messages, shows answers as they come, edits and forgets.

import { events } from "./api.js";
import { newKey } from "./conversation.js";
import * as dialogs from "./dialogs.js";
import { copy, find, say } from "./dom.js";
import { keep, kept } from "./drafts.js";
import { addTurn, clear, conversation, goTo, loadNewest, remove, views } from "./message_list.js";
import { attempt } from "./problems.js";

const RETRY_MS = 1500;
let onState;

/** `stateChanged(isAnswering)` is called when an answer begins and when it ends. */
export function connectThread(stateChanged) {
  onState = stateChanged;
  find("#thread").addEventListener("click", ({ target }) => {
    const view = views.find(({ actions }) => actions.contains(target));
    if (view) attempt(view.note, () => ACTIONS[target.dataset.do]?.(view));
  });
}

/** Show a conversation, or none; go to the message of the address's hash. Raises ApiError. */
export async function open(next) {
  clear(next);
  onState(false);
  if (!next) return;
  await loadNewest();
  resume();
  await goTo(location.hash);
}

/** Go on with an answer on its way, or offer a message again that may not be stored. */
function resume() {
  const [question, answer] = views.slice(-2);
  const sent = kept("sent", conversation.page);
  if (answer?.message.status === "streaming") run(answer, "follow", answer.message.id);
  else if (sent && question?.message.content !== sent.content) {
    fail(addTurn(sent.content), "This message may not have been sent.");
  }
}

/** Send a message. Raises ApiError if it was refused: nothing is stored then. */
export async function send(content) {
  const { page } = conversation;
  const sent = { key: newKey(), content };
  keep("sent", page, sent);
  keep("draft", page, null);
  const answer = addTurn(content);
  try {
    await generate(answer, "ask", content, sent.key);
  } catch (error) {
    if (!(error.status >= 400 && error.status < 500)) return fail(answer, error);
    keep("sent", page, null);
    remove(answer.question, answer);
    throw error;
  }
}

const run = (answer, ...call) =>
  generate(answer, ...call).catch((error) => fail(answer, error));

/** Show the last answer, which a method of the conversation gives. Raises ApiError. */
async function generate(answer, method, ...values) {
  const opened = conversation;
  answer.setStatus("streaming");
  onState(true);
  try {
    const response = await opened[method](...values);
    await read(response, answer).catch((error) => fail(answer, error));
  } finally {
    if (opened === conversation) onState(false);
  }
}

/** Show a turn's events; if they do not end well, go on with what is stored. */
async function read(response, answer) {
  answer.setText("");
  let problem;
  try {
    for await (const { name, data } of events(response, conversation.left.signal)) {
      if (name === "context") {
        answer.question?.set(data.user_message);
        answer.setMemories(data.context);
      } else if (name === "reasoning") answer.think(data.text);
      else if (name === "delta") answer.append(data.text);
      else if (name === "done") return finish(answer, data.assistant_message);
      else problem = data.detail;
    }
  } catch (error) {
    if (!(error instanceof TypeError)) throw error; // TypeError: the connection broke
  }
  await rejoin(answer, problem);
}

function finish(answer, message) {
  keep("sent", conversation.page, null);
  answer.set(message);
  say("Answer complete");
}

/** Show the turn as it is stored, once the server can be reached. */
async function rejoin(answer, problem) {
  const page = await conversation.newest().catch((error) => error);
  if (page.code === "offline") {
    answer.setStatus("streaming", "", page);
    await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
    return rejoin(answer, problem);
  }
  if (page instanceof Error) throw page;
  const [question, stored] = page.results.slice(-2);
  if (stored?.role !== "assistant") return fail(answer, problem ?? "It was not stored.");
  answer.question?.set(question);
  answer.set(stored);
  if (problem) return fail(answer, problem);
  if (stored.status !== "streaming") return finish(answer, stored);
  await read(await conversation.follow(stored.id), answer);
}

function fail(answer, problem) {
  if (problem.name === "AbortError") return; // the page shows another conversation
  answer.setStatus(answer.message.content ? "interrupted" : "failed", "", problem);
  say(answer.note.textContent);
}

export async function stop() {
  const { results } = await conversation.newest();
  const running = results.findLast((message) => message.status === "streaming");
  if (running) await conversation.stop(running.id);
}

const regenerate = (answer) => run(answer, "regenerate", answer.message.id);

const ACTIONS = {
  copy: ({ message }) => copy(message.content),

  regenerate,

  /** The same message again, under its key: if it was stored, it is not stored twice. */
  tryAgain(answer) {
    const sent = kept("sent", conversation.page);
    const question = views.at(-2);
    if (sent?.content !== question?.message.content) return regenerate(answer);
    answer.question = question;
    return run(answer, "ask", sent.content, sent.key);
  },

  /** The last question can be asked again with the edit. */
  async edit(view) {
    const isLast = views.at(-2) === view;
    const values = await dialogs.edit(conversation, view.message, isLast);
    if (!values) return;
    view.setText(values.content);
    if (values.action === "again") regenerate(views.at(-1));
  },

  async forget(view) {
    const deletion = () => conversation.forget(view.message.id);
    if (await dialogs.remove("forget-message", deletion)) remove(view);
  },
};
