// What went wrong, in sentences for people.

import { h, show } from "./dom.js";

// Other errors have good words of the API.
const SENTENCES = {
  offline: "There is no connection to the server. Your text is kept.",
  not_authenticated: "You are signed out. Your text is kept.",
  not_found: "This is not here any more; it may have been deleted elsewhere.",
  too_large: "This text is too long to send.",
};

function words({ code, message, retryAfter }) {
  const sentence = SENTENCES[code] ?? (message || "Something went wrong on the server.");
  return retryAfter && code !== "daily_limit" ? `${sentence} Wait ${retryAfter} s.` : sentence;
}

/** Show in `element` an error, with a link to sign in if that helps, or a sentence. */
export function tell(element, problem) {
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
    if (error.name !== "AbortError") tell(element, error);
    return false;
  }
}

/** A pressed button calls the function of `actions` that its `data-do` names. */
export function connect(element, trouble, actions) {
  element.addEventListener("click", ({ target }) => {
    const action = actions[target.closest("[data-do]")?.dataset.do];
    if (!action) return;
    show(trouble, "");
    attempt(trouble, () => action(target));
  });
}
