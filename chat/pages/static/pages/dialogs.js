// The page's dialogs, and what they ask before. Escape closes one, and the focus goes back.

import { find, say } from "./dom.js";

/** Open the dialog `id` with values in its fields. Null if the person closes it; else what was
    entered, by the fields' names, and as `action` the value of the button that was pressed. */
export function ask(id, values = {}) {
  const dialog = find(`#${id}`);
  const form = find("form", dialog);
  form.reset();
  for (const [name, value] of Object.entries(values)) form.elements[name].value = value;
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.onclose = () => {
      if (dialog.open) return;  // the event of an earlier time, late
      const action = dialog.returnValue;
      resolve(action ? { action, ...Object.fromEntries(new FormData(form)) } : null);
    };
  });
}

/** The new `content`, and the `action` "save" or "again", once it is saved; else null. */
export async function edit(conversation, { id, content }, canAskAgain = false) {
  find("#edit-message [value=again]").hidden = !canAskAgain;
  const values = await ask("edit-message", { content });
  if (values) await conversation.edit(id, values.content);
  return values;
}

/** Whether the person agreed in the dialog `id`, and what it tells of is deleted, now or before. */
export async function remove(id, deletion) {
  if (!(await ask(id))) return false;
  await deletion().catch((error) => {
    if (error.status !== 404) throw error;
  });
  say("Deleted");
  return true;
}
