// The card under an answer: which earlier messages it was given, each with its place, and what one
// can do about it. The memory page shows what it finds by the same entries.

import { edit, forget } from "./changes.js";
import { Conversation } from "./conversation.js";
import { button, dateOf, h } from "./dom.js";

/** A folded list of memories; null for none. */
export function memoryCard(memories, changed) {
  if (!memories?.length) return null;
  const name = `${memories.length} ${memories.length === 1 ? "of your " : ""}memories used`;
  return h("details", { className: "memories" }, h("summary", {}, name),
    h("ul", {}, ...memories.map((memory) => memoryEntry(memory, changed))));
}

/** One memory. `changed(memory, content)` is called after an edit, or with null once forgotten. */
export function memoryEntry(memory, changed) {
  const { source, role, content, message_id: id, created_at: at } = memory;
  const conversation = new Conversation(source.kind, source.id);
  const title = source.title || "New conversation";
  const text = h("blockquote", {}, content);
  const tell = (problem) => entry.append(h("p", { className: "error", role: "alert" }, problem));

  const onEdit = button("Edit", async () => {
    const values = await edit(conversation, id, text.textContent, tell);
    if (!values) return;
    text.textContent = values.content;
    changed?.(memory, values.content);
  });
  const onForget = button("Forget", async () => {
    if (!(await forget(conversation, id, `its conversation “${title}”`, tell))) return;
    entry.replaceChildren("Forgotten.");
    changed?.(memory, null);
  });
  const entry = h("li", { className: "memory" },
    h("p", { className: "from" },
      role === "user" ? "You, " : "Verse, ", h("time", { dateTime: at }, dateOf(at)), ", ",
      h("a", { href: `${conversation.page}#message-${id}` }, title)),
    text,
    h("div", { className: "actions" }, role === "user" ? onEdit : null, onForget));
  return entry;
}
