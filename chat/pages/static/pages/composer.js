// The box in which one writes: Enter sends, Shift+Enter makes a line. Drafts survive a reload.

import { draftOf, keepDraft } from "./drafts.js";
import { find, show } from "./dom.js";

const MAX_HEIGHT_PX = 240;

export class Composer {
  /** `onSend(text)` sends; if it throws, the text is back in the box with `onTrouble`'s words. */
  constructor({ onSend, onStop, onTrouble }) {
    Object.assign(this, { onSend, onStop, onTrouble });
    this.box = find("#message");
    this.trouble = find("#trouble");
    find("#composer").addEventListener("submit", (event) => {
      event.preventDefault();
      this.send();
    });
    this.box.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      this.send();
    });
    this.box.addEventListener("input", () => {
      keepDraft(this.place, this.box.value);
      this.fit();
    });
    find("#stop").addEventListener("click", () => this.onStop());
  }

  /** Where the draft belongs: the address of the open conversation. */
  open(place) {
    this.place = place;
    this.setText(draftOf(place));
    show(this.trouble, "");
  }

  setText(text) {
    this.box.value = text;
    keepDraft(this.place, text);
    this.fit();
  }

  /** The text being sent has made a conversation: it belongs there from now on. */
  moveTo(place) {
    this.place = this.sentFrom = place;
  }

  fit() {
    this.box.style.height = "auto";
    this.box.style.height = `${Math.min(this.box.scrollHeight, MAX_HEIGHT_PX)}px`;
  }

  setAnswering(answering) {
    find("#stop").hidden = !answering;
    find("#send").disabled = answering;
    this.answering = answering;
  }

  async send() {
    const text = this.box.value;
    if (!text.trim() || this.answering || this.sentFrom) return;
    this.sentFrom = this.place;
    this.setText("");
    show(this.trouble, "");
    this.box.focus();
    try {
      await this.onSend(text);
    } catch (error) {
      this.giveBack(this.sentFrom, text);
      this.onTrouble(this.trouble, error);
    } finally {
      this.sentFrom = null;
    }
  }

  /** The text goes back to where it was written, before what was written meanwhile. */
  giveBack(place, text) {
    if (this.place === place) this.setText([text, this.box.value].filter(Boolean).join("\n"));
    else keepDraft(place, [text, draftOf(place)].filter(Boolean).join("\n"));
  }
}
