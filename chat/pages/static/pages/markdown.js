// Shows an answer's Markdown, sanitized: raw HTML as text, images as links.

import { button, copy, h } from "./dom.js";
import highlighter from "./vendor/highlight.js";
import { Marked } from "./vendor/marked.js";
import purify from "./vendor/purify.js";

const escaped = (text) => text.replace(/[&<>"']/g, (char) => `&#${char.charCodeAt(0)};`);

const marked = new Marked({
  gfm: true,
  breaks: true,
  renderer: {
    html: ({ text }) => escaped(text),
    image: ({ href, text }) => `<a href="${escaped(href)}">Image: ${escaped(text || href)}</a>`,
    // The page's own headings are of the levels 1 and 2.
    heading({ tokens, depth }) {
      const level = Math.min(depth + 2, 6);
      return `<h${level}>${this.parser.parseInline(tokens)}</h${level}>\n`;
    },
    checkbox: ({ checked }) => (checked ? "☑ " : "☐ "),
  },
});

const ALLOWED = {
  ALLOWED_TAGS: ("p br hr strong em del code pre blockquote a ul ol li h3 h4 h5 h6" +
    " table thead tbody tr th td").split(" "),
  ALLOWED_ATTR: ["href", "class", "align", "start"],
  ALLOWED_URI_REGEXP: /^(?:https?:|mailto:)/i,
  RETURN_DOM_FRAGMENT: true,
};

/** Shows `text` in `element`. Blocks before the first that differs stay. */
export function showMarkdown(element, text) {
  const tokens = marked.lexer(text);
  const blocks = tokens.filter((token) => token.type !== "space");
  const changed = blocks.findIndex((token, place) => token.raw !== element.shown?.[place]);
  const same = changed < 0 ? blocks.length : changed;
  while (element.children.length > same) element.lastChild.remove();
  element.append(...blocks.slice(same).map((token) => render(token, tokens.links)));
  element.shown = blocks.map((token) => token.raw);
}

function render(token, links) {
  const html = marked.parser(Object.assign([token], { links }));
  const block = h("div", { className: "block", dir: "auto" }, purify.sanitize(html, ALLOWED));
  for (const link of block.querySelectorAll("a")) {
    link.target = "_blank";
    link.rel = "noopener noreferrer nofollow";
  }
  for (const code of block.querySelectorAll("pre > code")) decorate(code);
  for (const table of block.querySelectorAll("table")) {
    const frame = h("div", { className: "wide", tabIndex: 0, role: "region", ariaLabel: "Table" });
    table.replaceWith(frame);
    frame.append(table);
  }
  return block;
}

function decorate(code) {
  const language = /language-([\w+#-]+)/.exec(code.className)?.[1];
  if (language && highlighter.getLanguage(language)) highlighter.highlightElement(code);
  const copier = button("Copy", () => copy(code.textContent));
  code.parentElement.tabIndex = 0;
  code.parentElement.before(h("div", { className: "code-head" }, language ?? "", copier));
}
