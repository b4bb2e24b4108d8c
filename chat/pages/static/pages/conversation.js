// A conversation, and requests about it.

import { get, json, request } from "./api.js";

/** By `kind` ("chat" or "passage") and id. */
export class Conversation {
  constructor(kind, id) {
    Object.assign(this, { kind, id, api: `/api/${kind}s/${id}/`, page: `/${kind}s/${id}/` });
    this.left = new AbortController();  // aborts reading
  }

  /** Of the page's address; null on `/`. */
  static ofAddress(path) {
    const match = /^\/(chat|passage)s\/(\d+)\/$/.exec(path);
    return match && new Conversation(match[1], Number(match[2]));
  }

  static async create(kind, body) {
    const { id } = await json("POST", `/api/${kind}s/`, { body });
    return new Conversation(kind, id);
  }

  get = (url) => get(url, this.left.signal);
  load = () => this.get(this.api);
  change = (body) => json("PATCH", this.api, { body });
  remove = () => request("DELETE", this.api);
  message = (id) => `${this.api}messages/${id}/`;
  newest = () => this.get(`${this.api}messages/?newest=1&page_size=50`);
  stop = (id) => json("POST", `${this.message(id)}stop/`);
  edit = (id, content) => json("PATCH", this.message(id), { body: { content } });
  forget = (id) => request("DELETE", this.message(id));

  /** Event streams. A turn that is sent again has the same key. */
  ask = (content, key) => this.stream("POST", `${this.api}messages/`, { content }, key);
  regenerate = (id) => this.stream("POST", `${this.message(id)}regenerate/`, undefined, newKey());
  follow = (id) => this.stream("GET", `${this.message(id)}events/`);

  stream(method, url, body, key) {
    const headers = { Accept: "text/event-stream", ...(key && { "Idempotency-Key": key }) };
    return request(method, url, { body, headers, signal: this.left.signal });
  }
}

/** 128 random bits; crypto.randomUUID needs https or loopback. */
export const newKey = () => crypto.getRandomValues(new Uint32Array(4)).join("-");
