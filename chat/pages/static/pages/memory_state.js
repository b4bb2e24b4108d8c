// The user's switch of memory, and a line that says how memory works now.

import { get, json, words } from "./api.js";
import { find, show } from "./dom.js";

const MANY = 10;  // pending messages; fewer wait for a moment after each turn
const number = (count) => count.toLocaleString();

/** Why recall is not whole, or "" if it is. */
function shortcoming({ enabled, mode, messages, embedded, pending, failed }) {
  if (!enabled) return "Memory is off for you: nothing is recalled, and nothing is remembered.";
  if (mode === "off") return "Memory is off on this server.";
  if (mode === "lexical" && messages) return "Memory finds words only at the moment, not meaning.";
  if (failed) return `${number(failed)} of your messages could not be embedded; words find them.`;
  if (pending > MANY) {
    return `Memory is being filled: ${number(embedded)} of ${number(messages)} messages.`;
  }
  return "";
}

const summary = ({ messages, embedded, pending, failed }) =>
  `${number(messages)} messages, ${number(embedded)} embedded`
  + (pending ? `, ${number(pending)} pending` : "") + (failed ? `, ${number(failed)} failed` : "");

/** Show the state in `line`; `inFull` with the numbers. Connects the switch "Memory for me". */
export async function showMemoryState(line, { inFull = false } = {}) {
  const remember = find("#remember-me");
  const update = (state) => {
    remember.checked = state.enabled;
    const parts = inFull ? [`${summary(state)}.`, shortcoming(state)] : [shortcoming(state)];
    show(line, parts.filter(Boolean).join(" "));
  };
  remember.onchange = async () => {
    try {
      update(await json("PATCH", "/api/memory/", { enabled: remember.checked }));
    } catch (error) {
      remember.checked = !remember.checked;
      show(line, words(error));
    }
  };
  try {
    update(await get("/api/memory/"));
  } catch (error) {
    show(line, words(error));
  }
}
