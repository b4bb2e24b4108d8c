// Builds elements. Text is always set as text, never parsed.

/** An element with properties, attributes, and children, texts too. */
export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in element) element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

export const find = (selector, inside = document) => inside.querySelector(selector);

/** A copy of the element in the page's template `id`. */
export const fromTemplate = (id) => find(`#${id}`).content.firstElementChild.cloneNode(true);

export const button = (name, onclick) => h("button", { type: "button", onclick }, name);

/** An element without a text is hidden. */
export function show(element, text) {
  element.textContent = text;
  element.hidden = !text;
}

/** To screen readers. */
export const say = (text) => show(find("#said"), text);

/** Also on a page without a secure context, which has no navigator.clipboard. */
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
