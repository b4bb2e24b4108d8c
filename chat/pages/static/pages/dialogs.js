// The page's dialogs. Escape closes one.

import { find, say, show } from "./dom.js";
import { attempt } from "./problems.js";

/** Open the dialog `id` with values in its fields, until `act(entered)` succeeds. Gives the
    fields by name, and the pressed button as `action`; null if closed. */
export async function ask(id, values = {}, act = () => {}) {
  const dialog = find(`#${id}`);
  const form = find("form", dialog);
  const problem = find(".error", form);
  form.reset();
  show(problem, "");
  for (const [name, value] of Object.entries(values)) form.elements[name].value = value;
  for (;;) {
    dialog.returnValue = "";
    dialog.showModal();
    await new Promise((resolve) => {
      dialog.onclose = () => dialog.open || resolve();  // open: a late event
    });
    const action = dialog.returnValue;
    if (!action) return null;
    const entered = { action, ...Object.fromEntries(new FormData(form)) };
    if (await attempt(problem, () => act(entered))) return entered;
  }
}

/** The new `content`, and `action` "save" or "again", once it is saved; else null. */
export function edit(conversation, { id, content }, canAskAgain = false) {
  find("#edit-message [value=again]").hidden = !canAskAgain;
  return ask("edit-message", { content }, (entered) => conversation.edit(id, entered.content));
}

/** Whether the person agreed, and `deletion` is done, now or before. */
export async function remove(id, deletion) {
  if (!(await ask(id))) return false;
  await deletion().catch((error) => {
    if (error.status !== 404) throw error;
  });
  say("Deleted");
  return true;
}
