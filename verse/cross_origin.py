"""Headers that pages of another origin may send and read: CORS_ALLOWED_ORIGINS."""

from corsheaders.defaults import default_headers

OWN_HEADERS = ("idempotency-key", "x-verse-chat", "x-verse-client-chat", "x-verse-memory")
# OpenAI's libraries send them with each request; they say which library it is. openai-node 6.49
_STAINLESS_NAMES = (
    *("arch", "async", "custom-poll-interval", "helper-method", "lang", "os", "package-version"),
    *("poll-helper", "retry-count", "runtime", "runtime-version", "timeout"),
)
ALLOWED_HEADERS = (
    *default_headers,
    *OWN_HEADERS,
    *(f"x-stainless-{name}" for name in _STAINLESS_NAMES),
)
# OpenAI's libraries read x-should-retry, after which they do not send the request again.
EXPOSED_HEADERS = ("idempotent-replayed", "retry-after", "x-should-retry", *OWN_HEADERS)
