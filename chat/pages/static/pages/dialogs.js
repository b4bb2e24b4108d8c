// Questions in a dialog of the browser: Escape closes it, and the focus returns to where it was.

import { button, h } from "./dom.js";

/** The entered values, by name, and as `action` the button that was pressed; null if closed. */
function open(heading, contents, actions) {
  const back = document.activeElement;
  const form = h("form", { method: "dialog" }, h("h2", { id: "dialog-heading" }, heading));
  const dialog = h("dialog", { "aria-labelledby": "dialog-heading" }, form);
  form.append(...contents, h("div", { className: "actions" },
    button("Cancel", () => dialog.close()),
    ...actions.map((name, place) =>
      h("button", { value: name, className: place ? "" : "primary" }, name)),
  ));
  document.body.append(dialog);
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      const values = { action: dialog.returnValue, ...Object.fromEntries(new FormData(form)) };
      dialog.remove();
      if (back?.isConnected) back.focus();
      resolve(dialog.returnValue ? values : null);
    });
  });
}

/** Whether the person has agreed. */
export const confirm = async (heading, text, action) =>
  (await open(heading, [h("p", {}, text)], [action])) !== null;

/** A text; null if the person has closed the dialog. */
export const askText = (heading, fields, ...actions) =>
  open(heading, fields.map(fieldOf), actions);

function fieldOf({ name, label, value = "", rows = 0, maxLength }) {
  const properties = { name, value, required: true, ...(maxLength ? { maxLength } : {}) };
  const input = rows ? h("textarea", { ...properties, rows }) : h("input", properties);
  return h("label", {}, label, input);
}
