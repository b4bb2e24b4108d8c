// The REST API, with the browser's session.

/** A request that failed. `code` is the API's; "offline" when no answer came. */
export class ApiError extends Error {
  constructor(status, code, detail) {
    super(detail);
    this.status = status;
    this.code = code;
  }
}

const cookie = (name) =>
  document.cookie.split("; ").find((pair) => pair.startsWith(`${name}=`))?.split("=", 2)[1];

/** The response of a request that succeeded. Raises ApiError. */
export async function request(method, url, { body, headers = {}, signal } = {}) {
  const options = { method, signal, headers: { Accept: "application/json", ...headers } };
  if (method !== "GET") options.headers["X-CSRFToken"] = cookie("csrftoken") ?? "";
  if (body !== undefined) {
    options.headers["Content-Type"] = "application/json";
    options.body = JSON.stringify(body);
  }
  let response;
  try {
    response = await fetch(url, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, "offline", "No connection to the server.");
  }
  if (response.ok) return response;
  throw await errorOf(response);
}

async function errorOf(response) {
  const problem = await response.json().catch(() => ({}));
  const fields = Object.values(problem).flat().filter((value) => typeof value === "string");
  const code = problem.code ?? (response.status === 400 ? "invalid" : "error");
  const error = new ApiError(response.status, code, problem.detail ?? fields[0] ?? "");
  error.retryAfter = response.headers.get("Retry-After");
  return error;
}

export const json = async (method, url, body) =>
  (await request(method, url, { body })).json();

export const get = (url) => json("GET", url);

/** What went wrong and what to do, in a sentence for people. */
export function words(error) {
  const wait = error.retryAfter ? ` Try again in ${error.retryAfter} s.` : " Try again soon.";
  const sentences = {
    offline: "There is no connection to the server. Your text is kept.",
    not_authenticated: "You are signed out. Sign in again; your text is kept.",
    not_found: "This conversation is not here any more; it may have been deleted elsewhere.",
    in_progress: "An answer is on its way in this conversation. Wait for it, or stop it.",
    throttled: `That were many messages in a short time.${wait}`,
    too_many_streams: `Too many answers are on their way at once.${wait}`,
    database_unavailable: "The server cannot reach its database. Try again soon.",
  };
  if (error.status === 413) return "This text is too long to send.";
  return sentences[error.code] ?? (error.message || "Something went wrong on the server.");
}
