// Builds elements. Text is always set as text, never parsed.

/** An element with properties, attributes (aria-*, data-*, role …) and children, texts too. */
export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (name in element && !name.includes("-")) element[name] = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

export const find = (selector, inside = document) => inside.querySelector(selector);

export const button = (name, onclick, more = {}) =>
  h("button", { type: "button", onclick, ...more }, name);

/** Shows a text in an element that is hidden while it has none. */
export function show(element, text) {
  element.textContent = text;
  element.hidden = !text;
}

/** Says something to screen readers. */
export function say(text) {
  find("#said").textContent = text;
}

/** The first line of a text, at most `chars` characters; for titles and links. */
export function firstLine(text, chars = 80) {
  const line = text.trim().split("\n", 1)[0].trim();
  return [...line].slice(0, chars).join("");
}

export function dateOf(iso) {
  return new Date(iso).toLocaleDateString(undefined, {
    year: "numeric", month: "short", day: "numeric",
  });
}

/** Copies a text; also where the page has no secure context and so no clipboard of its own. */
export async function copy(text) {
  if (navigator.clipboard) {
    await navigator.clipboard.writeText(text);
  } else {
    const area = h("textarea", { value: text, className: "unseen" });
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
  say("Copied");
}
