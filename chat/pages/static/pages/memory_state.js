// The user's switch of memory, and how memory works now.

import { get, json } from "./api.js";
import { find, sentence, show } from "./dom.js";
import { attempt } from "./problems.js";

const MANY = 10;  // pending messages; fewer wait after each turn

/** Why recall is not whole. */
function shortcoming({ enabled, mode, messages, embedded, pending, failed }) {
  if (!enabled) return sentence("disabled");
  if (mode === "off" || (mode === "lexical" && messages)) return sentence(mode);
  if (failed) return `${failed} of your messages could not be embedded; words find them.`;
  if (pending <= MANY) return "";
  return `Memory is being filled: ${embedded} of ${messages} messages.`;
}

const summary = ({ messages, embedded, pending, failed }) =>
  `${messages} messages: ${embedded} embedded, ${pending} pending, ${failed} failed. `;

/** In `line`, `inFull` with the numbers, and in the switch. */
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
