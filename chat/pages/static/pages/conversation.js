// One conversation: its addresses, and requests about it and its messages.

import { get, json, request } from "./api.js";

/** By `kind` ("chat" or "passage") and id. */
export class Conversation {
  constructor(kind, id) {
    this.kind = kind;
    this.id = id;
    this.api = `/api/${kind}s/${id}/`;
    this.page = `/${kind}s/${id}/`;
  }

  /** Of the page's address; null on `/`. */
  static ofAddress(path) {
    const match = /^\/(chat|passage)s\/(\d+)\/$/.exec(path);
    return match && new Conversation(match[1], Number(match[2]));
  }

  static async create(kind, fields) {
    const { id } = await json("POST", `/api/${kind}s/`, fields);
    return new Conversation(kind, id);
  }

  load = () => get(this.api);
  change = (fields) => json("PATCH", this.api, fields);
  remove = () => request("DELETE", this.api);
  message = (id) => `${this.api}messages/${id}/`;
  newest = () => get(`${this.api}messages/?newest=1&page_size=50`);
  stop = (id) => json("POST", `${this.message(id)}stop/`);
  edit = (id, content) => json("PATCH", this.message(id), { content });
  forget = (id) => request("DELETE", this.message(id));

  /** The event stream of a new turn. The same key again never stores the message twice. */
  ask = (content, key) =>
    request("POST", `${this.api}messages/`, {
      body: { content },
      headers: { Accept: "text/event-stream", "Idempotency-Key": key },
    });

  regenerate = (id, key) =>
    request("POST", `${this.message(id)}regenerate/`, {
      headers: { Accept: "text/event-stream", "Idempotency-Key": key },
    });

  /** The event stream of an answer that is still on its way, in whichever process. */
  follow = (id) =>
    request("GET", `${this.message(id)}events/`, { headers: { Accept: "text/event-stream" } });
}

/** 128 random bits. crypto.randomUUID exists only where the page came by https or from loopback. */
export const newKey = () =>
  [...crypto.getRandomValues(new Uint8Array(16))]
    .map((byte) => byte.toString(16).padStart(2, "0")).join("");
