// What went wrong, in sentences for people.

import { h, sentence, show } from "./dom.js";

function words({ code, message, retryAfter }) {
  const said = sentence(code) ?? (message || sentence("unknown"));
  return retryAfter && code !== "daily_limit" ? `${said} Wait ${retryAfter} s.` : said;
}

/** Show an error or a sentence. */
export function tell(element, problem) {
  if (problem.name === "AbortError") return; // the page shows another conversation
  show(element, problem instanceof Error ? words(problem) : problem);
  if (problem.code !== "not_authenticated") return;
  const next = encodeURIComponent(location.pathname);
  element.append(" ", h("a", { href: `/accounts/login/?next=${next}` }, "Sign in"));
}

/** Whether `action` succeeded; else `element` tells why. */
export async function attempt(element, action) {
  try {
    await action();
    return true;
  } catch (error) {
    tell(element, error);
    return false;
  }
}

/** A button calls the function of `actions` that its `data-do` names. */
export function connect(element, trouble, actions) {
  element.addEventListener("click", ({ target }) => {
    const action = actions[target.closest("[data-do]")?.dataset.do];
    if (!action) return;
    show(trouble, "");
    attempt(trouble, () => action(target));
  });
}
