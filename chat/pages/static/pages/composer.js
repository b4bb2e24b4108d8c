// The box in which one writes: Enter sends, Shift+Enter makes a line. Drafts survive a reload.

import { find, show } from "./dom.js";
import { keep, kept } from "./drafts.js";
import { tell } from "./problems.js";

const box = find("#message");
const trouble = find("#trouble");
let onSend;
let place;  // where the draft belongs: the address of the open conversation
let sentFrom = null;  // where the text belongs that is being sent
let isAnswering = false;

/** `send(text)` sends; if it throws, the text is back in the box, with the problem above it. */
export function connectComposer(send) {
  onSend = send;
  find("#composer").addEventListener("submit", submit);
  box.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) submit(event);
  });
  box.addEventListener("input", () => write(box.value));
}

export function open(address) {
  place = address;
  fill(kept("draft", place) ?? "");
  show(trouble, "");
}

function fill(text) {
  if (box.value !== text) box.value = text;
  box.style.height = "auto";
  box.style.height = `${box.scrollHeight}px`;
}

export function write(text) {
  fill(text);
  keep("draft", place, text);
}

/** The text being sent has made this conversation. */
export function moveTo(address) {
  keep("draft", place, null);
  place = sentFrom = address;
  write(box.value);
}

export function setAnswering(value) {
  isAnswering = value;
  find("#stop").hidden = !value;
  find("#send").disabled = value;
}

export function submit(event) {
  event?.preventDefault();
  if (box.value.trim() && !isAnswering && !sentFrom) send(box.value);
}

async function send(text) {
  sentFrom = place;
  fill("");  // the draft stays until the text is kept as sent
  show(trouble, "");
  box.focus();
  try {
    await onSend(text);
  } catch (error) {
    giveBack(sentFrom, text);
    tell(trouble, error);
  }
  sentFrom = null;
}

/** The text goes back to where it was written, before what was written meanwhile. */
function giveBack(address, text) {
  const isOpen = place === address;
  const later = isOpen ? box.value : kept("draft", address);
  const whole = [text, later].filter(Boolean).join("\n");
  if (isOpen) write(whole);
  else keep("draft", address, whole);
}
