// What was typed but is not yet stored, kept for this user until they sign out.

const name = (what, place) => `verse/${document.body.dataset.userId}/${what}${place}`;

/** By address: a "draft", or what was "sent" and has no whole answer, {key, content, after}. */
export const kept = (what, place) => JSON.parse(localStorage.getItem(name(what, place)));

/** An empty value is deleted. */
export function keep(what, place, value) {
  if (!value) return localStorage.removeItem(name(what, place));
  try {
    localStorage.setItem(name(what, place), JSON.stringify(value));
  } catch {
    // Full (5 MB): the text is in the box alone.
  }
}

document.querySelector("#sign-out").addEventListener("submit", () => localStorage.clear());
