// The memory page: search in it, forget and edit, export, erase.

import { get, json, words } from "./api.js";
import { askText } from "./dialogs.js";
import { find, h, show } from "./dom.js";
import { forgetAll } from "./drafts.js";
import { memoryEntry } from "./memories.js";
import { showMemoryState } from "./memory_state.js";

const MAX_RESULTS = 50;
const state = find("#memory-state");
const trouble = find("#trouble");
const refresh = () => showMemoryState(state, { inFull: true });

async function search(event) {
  event.preventDefault();
  const filters = [...new FormData(event.target)].filter(([, value]) => value);
  const query = new URLSearchParams({ ...Object.fromEntries(filters), limit: MAX_RESULTS });
  const until = query.get("until");
  if (until) query.set("until", `${until}T23:59:59.999Z`);
  show(trouble, "");
  try {
    const { results } = await get(`/api/memory/search/?${query}`);
    const heading = results.length ? `${results.length} found, best first` : "Nothing found";
    find("#found").replaceChildren(h("h2", {}, heading),
      h("ul", {}, ...results.map((memory) => memoryEntry(memory, refresh))));
  } catch (error) {
    show(trouble, words(error));
  }
}

async function erase() {
  const { username } = document.body.dataset;
  const label = `Nothing brings it back. Write your username, ${username}, to go on.`;
  const values = await askText("Erase everything?", [{ name: "confirm", label }], "Erase");
  if (!values) return;
  try {
    showReceipt(await json("DELETE", "/api/memory/", { confirm: values.confirm }));
    find("#found").replaceChildren();
    refresh();
  } catch (error) {
    show(trouble, words(error));
  }
}

function showReceipt({ deleted, at }) {
  const rows = Object.entries(deleted).map(([table, count]) =>
    h("tr", {}, h("th", { scope: "row" }, table), h("td", {}, count.toLocaleString())));
  find("#receipt").replaceChildren(
    h("p", {}, "Erased at ", h("time", { dateTime: at }, new Date(at).toLocaleString()), ":"),
    h("table", {}, h("tbody", {}, ...rows)));
}

find("#search").addEventListener("submit", search);
find("#erase").addEventListener("click", erase);
find("#sign-out").addEventListener("submit", forgetAll);
refresh();
