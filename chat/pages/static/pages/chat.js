// The chat page: the open conversation, the list of all, and what one does with a conversation.

import { words } from "./api.js";
import { Composer } from "./composer.js";
import { Conversation } from "./conversation.js";
import { askText, confirm } from "./dialogs.js";
import { find, firstLine, h, say, show } from "./dom.js";
import { forgetAll } from "./drafts.js";
import { showMemoryState } from "./memory_state.js";
import { Sidebar, titleOf } from "./sidebar.js";
import { Thread } from "./thread.js";

const MAX_REFERENCE_CHARS = 200;
const state = find("#memory-state");
let conversation = null;

const thread = new Thread(find("#thread"), (answering) => {
  composer?.setAnswering(answering);
  if (!answering) showMemoryState(state);
});
const composer = new Composer({ onSend: send, onStop: () => stop(), onTrouble: tell });
const sidebar = new Sidebar(find("#conversations"), find("#found"), (address) => go(address));

/** Words about an error, with a link to sign in where that is the way out. */
function tell(element, error) {
  show(element, words(error));
  if (error.code !== "not_authenticated") return;
  const next = encodeURIComponent(location.pathname);
  element.append(" ", h("a", { href: `/accounts/login/?next=${next}` }, "Sign in"));
}

/** Run what a button asks for; tell what went wrong above the box. */
const trying = (action) => async (...values) => {
  try {
    await action(...values);
  } catch (error) {
    tell(find("#trouble"), error);
  }
};

const stop = trying(() => thread.stop());

/** Open an address of the page, and put it into the browser's history. */
function go(address) {
  if (address !== location.pathname + location.hash) history.pushState(null, "", address);
  closeMenu();
  return open();
}

const open = trying(async () => {
  const next = Conversation.ofAddress(location.pathname);
  if (next && next.page === conversation?.page) return thread.goTo(location.hash);
  conversation = next;
  composer.open(location.pathname);
  sidebar.mark(conversation);
  find("#welcome").hidden = conversation !== null;
  find("#tools").hidden = conversation === null;
  find("#passage").hidden = true;
  showTitle("New conversation");
  const details = conversation && (await conversation.load());
  if (conversation !== next) return;
  if (details) showDetails(details);
  await thread.open(conversation);
  if (!location.hash) composer.box.focus();
});

function showDetails(details) {
  showTitle(titleOf(details));
  find("#remember").checked = details.memory;
  find("#passage").hidden = details.text === undefined;
  find("#passage summary").textContent = details.reference ?? "";
  find("#passage div").textContent = details.text ?? "";
}

function showTitle(title) {
  find("#title").textContent = title;
  document.title = `${title} · Verse`;
}

/** Send a message; the first one makes its conversation, titled by its first line. */
async function send(text) {
  if (!conversation) {
    const title = firstLine(text);
    conversation = await Conversation.create("chat", { title });
    sidebar.add("chat", { id: conversation.id, title });
    await enter(title);
  }
  await thread.send(text);
}

/** Go on in a conversation that was made just now, without loading it. */
async function enter(title) {
  history.pushState(null, "", conversation.page);
  composer.moveTo(conversation.page);
  find("#welcome").hidden = true;
  find("#tools").hidden = false;
  find("#remember").checked = true;
  sidebar.mark(conversation);
  showTitle(title);
  await thread.open(conversation, { isNew: true });
}

const rename = trying(async () => {
  const field = conversation.kind === "passage" ? "reference" : "title";
  const label = field === "title" ? "Title" : "Reference";
  const values = await askText("Rename this conversation",
    [{ name: field, label, value: find("#title").textContent, maxLength: MAX_REFERENCE_CHARS }],
    "Rename");
  if (!values) return;
  const details = await conversation.change({ [field]: values[field] });
  showTitle(titleOf(details));
  sidebar.rename(conversation, titleOf(details));
});

const remove = trying(async () => {
  const agreed = await confirm("Delete this conversation?",
    "Its messages are deleted with it, and never recalled again.", "Delete");
  if (!agreed) return;
  await conversation.remove();
  sidebar.remove(conversation);
  say("Deleted");
  await go("/");
});

const newPassage = trying(async () => {
  const values = await askText("A passage to talk about", [
    { name: "reference", label: "Reference", maxLength: MAX_REFERENCE_CHARS },
    { name: "text", label: "Text", rows: 10 },
  ], "Begin");
  if (!values) return;
  const { reference, text } = values;
  const made = await Conversation.create("passage", { reference, text });
  sidebar.add("passage", { id: made.id, reference });
  await go(made.page);
});

const remember = trying(async (event) => {
  const box = event.target;
  await conversation.change({ memory: box.checked }).catch((error) => {
    box.checked = !box.checked;
    throw error;
  });
  say(box.checked ? "Memory is on here" : "Memory is off here");
});

// --- the side, where the page is narrow ---

function toggleMenu(isOpen) {
  document.body.classList.toggle("menu-open", isOpen);
  find("#menu").setAttribute("aria-expanded", isOpen);
}

const closeMenu = () => toggleMenu(false);

/** What Escape closes; it never stops an answer. Dialogs close by themselves. */
function closeAll() {
  closeMenu();
  find("#search").reset();
  sidebar.search("");
  for (const card of document.querySelectorAll("details.memories[open]")) card.open = false;
}

function shortcuts(event) {
  if (find("dialog[open]")) return;
  if (event.key === "Escape") closeAll();
  const isTyping = event.target.closest?.("input, textarea, select");
  if (event.key === "/" && !isTyping) {
    event.preventDefault();
    toggleMenu(true);
    find("#search input").focus();
  }
}

find("#menu").addEventListener("click", () =>
  toggleMenu(!document.body.classList.contains("menu-open")));
find("#rename").addEventListener("click", rename);
find("#delete").addEventListener("click", remove);
find("#new-passage").addEventListener("click", newPassage);
find("#remember").addEventListener("change", remember);
find("#sign-out").addEventListener("submit", forgetAll);
find("#search").addEventListener("submit", (event) => {
  event.preventDefault();
  sidebar.search(new FormData(event.target).get("q"));
});
for (const control of document.querySelectorAll("[data-new]")) {
  control.addEventListener("click", () => go("/"));
}
for (const question of document.querySelectorAll("[data-ask]")) {
  question.addEventListener("click", () => {
    composer.setText(question.textContent);
    composer.send();
  });
}
find("#thread").addEventListener("click", (event) => {
  const link = event.target.closest(".memory a");
  if (!link || event.ctrlKey || event.metaKey) return;
  event.preventDefault();
  go(link.getAttribute("href"));
});
document.addEventListener("keydown", shortcuts);
window.addEventListener("popstate", open);

find("#composer").hidden = false;  // one cannot write into a page that is not ready
sidebar.load().catch((error) => tell(find("#trouble"), error));
showMemoryState(state);
open();
