// What was typed but is not yet stored, kept in the browser for this user until they sign out.

const PREFIX = "verse:";
const own = () => `${PREFIX}${document.body.dataset.userId}:`;

/** The store's key of a draft, or of a message that waits to be sent again. */
const name = (what, place) => `${own()}${what}:${place}`;

export const draftOf = (place) => localStorage.getItem(name("draft", place)) ?? "";

export function keepDraft(place, text) {
  if (text) localStorage.setItem(name("draft", place), text);
  else localStorage.removeItem(name("draft", place));
}

/** A message that was sent and not yet answered in full: {key, content}, or null. */
export const unansweredOf = (place) =>
  JSON.parse(localStorage.getItem(name("sent", place)) ?? "null");

export function keepUnanswered(place, turn) {
  if (turn) localStorage.setItem(name("sent", place), JSON.stringify(turn));
  else localStorage.removeItem(name("sent", place));
}

export function forgetAll() {
  for (const key of Object.keys(localStorage)) {
    if (key.startsWith(PREFIX)) localStorage.removeItem(key);
  }
}
