// The box in which one writes. Drafts survive a reload.

import { find, show } from "./dom.js";
import { keep, kept } from "./drafts.js";
import { tell } from "./problems.js";

const box = find("#message");
const trouble = find("#trouble");
let onSend;
let place;  // the address of the open conversation
const sending = new Set();  // {from}: their addresses
let isAnswering = false;

/** If `send(text, isHere)` throws, the text goes back to the box. */
export function connectComposer(send) {
  onSend = send;
  find("#composer").addEventListener("submit", submit);
  box.addEventListener("keydown", (event) => {
    // Enter; where it ends a conversion, keyCode is 229.
    if (event.keyCode === 13 && !event.shiftKey) submit(event);
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

const beingSent = () => [...sending].find(({ from }) => from === place);

/** The text being sent has made this conversation. */
export function moveTo(address) {
  place = beingSent().from = address;
  write(box.value);
}

export function setAnswering(value) {
  isAnswering = value;
  find("#stop").hidden = !value;
  find("#send").disabled = value;
}

export function submit(event) {
  event?.preventDefault();
  if (box.value.trim() && !isAnswering && !beingSent()) send(box.value);
}

async function send(text) {
  const sent = { from: place };
  sending.add(sent);
  fill("");  // the draft stays until the text is kept as sent
  show(trouble, "");
  box.focus();
  try {
    await onSend(text, () => place === sent.from);
  } catch (error) {
    giveBack(sent.from, text);
    tell(trouble, error);
  }
  sending.delete(sent);
}

/** The text goes back to where it was written, before a later one. */
export function giveBack(address, text) {
  const later = place === address ? box.value : kept("draft", address);
  const whole = [...new Set([text, later])].filter(Boolean).join("\n");
  if (place === address) write(whole);
  else keep("draft", address, whole);
}
