// The chat page: what one does with a conversation.

import * as composer from "./composer.js";
import { Conversation } from "./conversation.js";
import * as dialogs from "./dialogs.js";
import { find, say } from "./dom.js";
import { keep } from "./drafts.js";
import { connectKeys } from "./keyboard.js";
import { showMemoryState } from "./memory_state.js";
import { clear, conversation, goTo, loadEarlier, views } from "./message_list.js";
import { attempt, connect } from "./problems.js";
import * as sidebar from "./sidebar.js";
import * as thread from "./thread.js";

const trouble = find("#trouble");
const updateMemoryState = () => showMemoryState(find("#memory-state"));

function go(address) {
  if (address !== location.pathname + location.hash) history.pushState(null, "", address);
  toggleMenu(false);
  return open();
}

const open = () => attempt(trouble, async () => {
  find("dialog[open]")?.close();
  const next = Conversation.ofAddress(location.pathname);
  if (views[0] && next?.page === conversation?.page) await goTo(location.hash);
  else await load(next);
});

async function load(next) {
  const opening = [thread.open(next), next?.load().then(showDetails)];
  composer.open(location.pathname);
  showFrame("New conversation");
  await Promise.all(opening);
  if (!location.hash) find("#message").focus();
}

function showDetails(details) {
  showTitle(sidebar.titleOf(details));
  find("#remember").checked = details.memory;
  find("#passage summary").textContent = details.reference;
  find("#passage div").textContent = details.text;
}

/** chat.css shows the parts of each kind. */
function showFrame(title) {
  document.body.dataset.kind = conversation?.kind ?? "none";
  sidebar.mark();
  showTitle(title);
}

function showTitle(title) {
  find("#title").textContent = title;
  document.title = `${title} · Verse`;
}

const titleFor = (text) => [.../\S.*/.exec(text)[0].trim()].slice(0, 80).join("");

/** Send a message; the first one makes its conversation, which waits if another one is open. */
async function send(text, isHere) {
  if (!conversation) {
    const title = titleFor(text);
    const begun = await Conversation.create("chat", { title });
    keep("draft", "/", null);
    sidebar.add("chat", { id: begun.id, title });
    if (!isHere()) return keep("draft", begun.page, text);
    clear(begun);
    history.pushState(null, "", conversation.page);
    composer.moveTo(conversation.page);
    find("#remember").checked = true;
    showFrame(title);
  }
  await thread.send(text).catch(async (error) => {
    // Another tab has sent something.
    if (error.code === "in_progress") await load(Conversation.ofAddress(conversation.page));
    throw error;
  });
}

const refreshTitle = async () => retitle(await conversation.load());

function retitle(details) {
  const title = sidebar.titleOf(details);
  showTitle(title);
  sidebar.currentLink()?.replaceChildren(title);
}

const rename = () =>
  dialogs.ask("rename-conversation", { title: find("#title").textContent }, async ({ title }) => {
    const name = conversation.kind === "chat" ? "title" : "reference";
    retitle(await conversation.change({ [name]: title }));
  });

async function remove() {
  if (!(await dialogs.remove("delete-conversation", conversation.remove))) return;
  keep("sent", conversation.page, null);
  sidebar.currentLink()?.parentElement.remove();
  await go("/");
}

const newPassage = () =>
  dialogs.ask("begin-passage", {}, async ({ reference, text }) => {
    const { id, page } = await Conversation.create("passage", { reference, text });
    sidebar.add("passage", { id, reference });
    await go(page);
  });

async function remember({ target: box }) {
  const memory = box.checked;
  const change = () => conversation.change({ memory });
  if (await attempt(trouble, change)) say(`Memory is ${memory ? "on" : "off"} here`);
  else box.checked = !memory;
}

function toggleMenu(force) {
  const isOpen = document.body.classList.toggle("menu-open", force);
  find("#menu").setAttribute("aria-expanded", isOpen);
}

/** What Escape closes; it never stops an answer. */
function closeAll() {
  toggleMenu(false);
  find("#search").reset();
  for (const card of document.querySelectorAll("details.memories[open]")) card.open = false;
}

connect(document, trouble, {
  new: () => go("/"),
  newPassage,
  rename,
  remove,
  menu: () => toggleMenu(),
  earlier: loadEarlier,
  stop: thread.stop,
  ask(question) {
    composer.write(question.textContent);
    composer.submit();
  },
});
document.addEventListener("click", (event) => {
  const link = event.target.closest("a:is([href^='/chats/'], [href^='/passages/'])");
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  go(link.getAttribute("href"));
});
connectKeys(closeAll, () => toggleMenu(true));
find("#remember").addEventListener("change", remember);
window.addEventListener("popstate", open);
composer.connectComposer(send);
thread.connectThread((isAnswering) => {
  composer.setAnswering(isAnswering);
  if (!isAnswering) updateMemoryState();
}, () => attempt(trouble, refreshTitle));

find("#composer").hidden = false;
attempt(trouble, sidebar.load);
updateMemoryState();
open();
