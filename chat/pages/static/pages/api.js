// The REST API, with the browser's session.

/** An ApiError. Its `code` is the API's, or "offline". */
const apiError = (status, { code, detail }, retryAfter) =>
  Object.assign(new Error(detail), { status, code, retryAfter });

/** Raises ApiError, or AbortError once `signal` is aborted. */
export async function request(method, url, { body, headers, signal } = {}) {
  const token = /(?:^|; )csrftoken=([^;]*)/.exec(document.cookie)?.[1];
  const response = await fetch(url, {
    method,
    headers: { "Content-Type": "application/json", "X-CSRFToken": token ?? "", ...headers },
    body: JSON.stringify(body),
  }).catch(() => {
    throw apiError(0, { code: "offline" });
  });
  if (signal?.aborted) response.body?.cancel();  // else it holds its connection
  signal?.throwIfAborted();
  if (response.ok) return response;
  const problem = await response.json().catch(() => ({}));
  throw apiError(response.status, problem, response.headers.get("Retry-After"));
}

export const json = async (...call) => (await request(...call)).json();

export async function get(url, signal) {
  const body = await json("GET", url, { signal });
  signal?.throwIfAborted();
  return body;
}

const EVENT = /^event: (.*)\ndata: (.*)$/s;  // others are comments

/** {name, data} of each event. `signal` closes the connection. */
export async function* events(response, signal) {
  const reader = response.body.pipeThrough(new TextDecoderStream(), { signal }).getReader();
  let text = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const parts = (text + value).split("\n\n");
    text = parts.pop();
    for (const part of parts) {
      const [, name, data] = EVENT.exec(part) ?? [];
      if (name) yield { name, data: JSON.parse(data) };
    }
  }
}
