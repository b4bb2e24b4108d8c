// Keys of all pages: `/` searches, Escape closes, arrows go through lists.

import { find } from "./dom.js";

const TEXT_FIELDS = "input:not([type=checkbox]), textarea, select";

/** `onSearch` shows the search. Dialogs close by themselves. */
export function connectKeys(onEscape, onSearch = () => {}) {
  document.addEventListener("keydown", (event) => {
    const { key, target } = event;
    if (find("dialog[open]")) return;
    if (key === "Escape") return onEscape();
    if (target.closest(TEXT_FIELDS)) return;
    const step = { ArrowDown: 1, ArrowUp: -1 }[key];
    const list = target.closest("[data-arrows]");
    if (key === "/") {
      onSearch();
      find("#search input").focus();
    } else if (step && list) {
      const stops = [...list.querySelectorAll("a, button")];
      stops[stops.indexOf(document.activeElement) + step]?.focus();
    } else return;
    event.preventDefault();
  });
}
