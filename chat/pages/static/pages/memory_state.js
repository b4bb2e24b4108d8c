// The user's switch of memory, and a line that says how memory works now.

import { get, json } from "./api.js";
import { find, show } from "./dom.js";
import { attempt } from "./problems.js";

const MANY = 10;  // pending messages; fewer wait for a moment after each turn

/** Why recall is not whole. */
function shortcoming({ enabled, mode, messages, embedded, pending, failed }) {
  if (!enabled) return "Memory is off for you: nothing is recalled, and nothing is remembered.";
  if (mode === "off") return "Memory is off on this server.";
  if (mode === "lexical" && messages) return "Memory finds words only at the moment, not meaning.";
  if (failed) return `${failed} of your messages could not be embedded; words find them.`;
  if (pending <= MANY) return "";
  return `Memory is being filled: ${embedded} of ${messages} messages.`;
}

const summary = ({ messages, embedded, pending, failed }) =>
  `${messages} messages: ${embedded} embedded, ${pending} pending, ${failed} failed. `;

/** Show the state in `line`, `inFull` with the numbers, and in the switch "Memory for me". */
export function showMemoryState(line, inFull = false) {
  const remember = find("#remember-me");
  const update = (state) => {
    remember.checked = state.enabled;
    show(line, (inFull ? summary(state) : "") + shortcoming(state));
  };
  remember.onchange = async () => {
    const body = { enabled: remember.checked };
    const change = async () => update(await json("PATCH", "/api/memory/", { body }));
    if (!(await attempt(line, change))) remember.checked = !body.enabled;
  };
  attempt(line, async () => update(await get("/api/memory/")));
}
