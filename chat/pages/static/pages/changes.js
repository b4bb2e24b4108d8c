// What a person can do about one message: edit it, or forget it. Both ask first.

import { words } from "./api.js";
import { askText, confirm } from "./dialogs.js";
import { say } from "./dom.js";

/** The button that was pressed and the new `content`, once it is saved; null if nothing changed. */
export async function edit(conversation, id, content, onError, actions = ["Save"]) {
  const values = await askText("Edit what you said",
    [{ name: "content", label: "Message", value: content, rows: 8 }], ...actions);
  return values && attempt(() => conversation.edit(id, values.content), onError, "Saved", values);
}

/** Whether the message was deleted, now or before. */
export async function forget(conversation, id, place, onError) {
  const agreed = await confirm("Forget this message?",
    `It is deleted, from ${place} too, and never recalled again.`, "Forget");
  return agreed && attempt(() => conversation.forget(id).catch((error) => {
    if (error.status !== 404) throw error;
  }), onError, "Forgotten", true);
}

async function attempt(action, onError, said, result) {
  try {
    await action();
  } catch (error) {
    onError(words(error));
    return null;
  }
  say(said);
  return result;
}
