// Memories of an answer's card, and of the memory page.

import { Conversation } from "./conversation.js";
import { edit, remove } from "./dialogs.js";
import { find, fromTemplate, h } from "./dom.js";
import { connect } from "./problems.js";

/** A folded list of memories, best first; "" for none. */
export function memoryCard(memories = [], changed) {
  if (!memories.length) return "";
  const name = `${memories.length} ${memories.length === 1 ? "of your " : ""}memories used`;
  return h("details", { className: "memories" }, h("summary", {}, name),
    h("ol", {}, ...memories.map((memory) => memoryEntry(memory, changed))));
}

/** `changed(memory, content)` is called after an edit, or with null once forgotten. */
export function memoryEntry(memory, changed) {
  const { source, role, content, message_id: id, created_at: at } = memory;
  const conversation = new Conversation(source.kind, source.id);
  const entry = fromTemplate("memory");
  const [by, time, link, text, problem] =
    "span time a blockquote .error".split(" ").map((part) => find(part, entry));
  by.textContent = role === "user" ? "You" : "Verse";
  time.dateTime = at;
  time.textContent = new Date(at).toLocaleDateString(undefined, { dateStyle: "medium" });
  link.href = `${conversation.page}#message-${id}`;
  link.textContent = source.title || "New conversation";
  text.textContent = content;
  find("[data-do=edit]", entry).hidden = role !== "user";
  const forget = async (...question) => {
    if (!(await remove(...question))) return;
    entry.replaceChildren("Forgotten.");
    changed(memory, null);
  };
  connect(entry, problem, {
    async edit() {
      const values = await edit(conversation, { id, content: text.textContent });
      if (!values) return;
      text.textContent = values.content;
      changed(memory, values.content);
    },
    forget: () => forget("forget-message", () => conversation.forget(id)),
    forgetAll: () => forget("delete-conversation", conversation.remove),
  });
  return entry;
}
