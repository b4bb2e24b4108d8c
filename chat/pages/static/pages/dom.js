// Builds elements. Text is always set as text, never parsed.

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

export const fromTemplate = (id) => find(`#${id}`).content.firstElementChild.cloneNode(true);

export const button = (name, onclick) => h("button", { type: "button", onclick }, name);

/** Of the template "sentences"; undefined if none has this name. */
export const sentence = (name) => find("#sentences").content.getElementById(name)?.textContent;

/** An element without a text is hidden. */
export function show(element, text) {
  element.textContent = text;
  element.hidden = !text;
}

/** To screen readers. */
export const say = (text) => show(find("#said"), text);

/** Without https there is no navigator.clipboard. */
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
