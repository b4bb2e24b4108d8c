// The memory page: search in it, forget and edit, export, erase.

import { get, json } from "./api.js";
import { ask } from "./dialogs.js";
import { find, h, show } from "./dom.js";
import "./drafts.js";  // for signing out
import { connectKeys } from "./keyboard.js";
import { memoryEntry } from "./memories.js";
import { showMemoryState } from "./memory_state.js";
import { attempt, connect } from "./problems.js";

const form = find("#search");
const found = find("#found");
const trouble = find("#trouble");
let latest;
const refresh = () => showMemoryState(find("#memory-state"), true);

async function search(event) {
  event?.preventDefault();
  refresh();
  const query = latest = new URLSearchParams([...new FormData(form)].filter(([, value]) => value));
  if (query.has("until")) query.set("until", `${query.get("until")}T23:59:59.999Z`);
  show(trouble, "");
  await attempt(trouble, async () => {
    const { results } = await get(`/api/memory/search/?limit=50&${query}`);
    if (query !== latest) return;
    const heading = results.length ? `${results.length} found, best first` : "Nothing found";
    const entries = results.map((memory) => memoryEntry(memory, () => search()));
    found.replaceChildren(h("h2", {}, heading), h("ol", {}, ...entries));
  });
}

async function erase() {
  const body = await ask("erase-everything");
  if (!body) return;
  showReceipt(await json("DELETE", "/api/memory/", { body }));
  found.replaceChildren();
  refresh();
}

function showReceipt({ deleted, at }) {
  const rows = Object.entries(deleted).map(([table, count]) =>
    h("tr", {}, h("th", { scope: "row" }, table), h("td", {}, count.toLocaleString())));
  find("#receipt time").textContent = new Date(at).toLocaleString();
  find("#receipt tbody").replaceChildren(...rows);
  find("#receipt").hidden = false;
}

connect(document, trouble, { erase });
connectKeys(() => found.replaceChildren());
form.addEventListener("submit", search);
form.q.value = new URLSearchParams(location.search).get("q") ?? "";
if (form.q.value) search();
else refresh();
