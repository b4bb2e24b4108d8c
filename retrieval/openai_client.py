"""OpenAI's client as Verse uses it: one attempt a call, no timeout of its own, the raw response.

Importing ``openai`` takes 0.4 s and 20 MB (docs/decisions/0001-stack.md). Import this module inside
the function that makes a call, so that commands without calls start without it.
"""

from collections.abc import Awaitable, Callable
from typing import Any

import httpx2
from aiohttp import ClientConnectorError, ClientError
from openai import (
    APIConnectionError,
    APIStatusError,
    AsyncOpenAI,
    DefaultAioHttpClient,
    Omit,
    OpenAIError,
    RequestOptions,
)

from retrieval import event_loop

MAX_REDIRECTS = 3
KEEPALIVE_S = 5.0  # httpx2's default for an idle connection
UNLIMITED = 0  # connections; None would be 100
# Proxies of the environment are for other machines, whatever NO_PROXY says.
DIRECT = dict.fromkeys(("all://127.0.0.1", "all://localhost", "all://[::1]"))
NO_KEY = "none"  # the client requires a key; without one, the header Authorization is omitted
# The service cannot be reached, breaks off, or its URL is not valid.
CONNECTION_ERRORS = (OpenAIError, httpx2.HTTPError, httpx2.InvalidURL, ClientError)

# No connection was made, or the URL is not valid.
NEVER_SENT = (ClientConnectorError, httpx2.UnsupportedProtocol, httpx2.InvalidURL)


def may_have_been_sent(error: BaseException) -> bool:
    """Whether the service may have got the request that failed with one of CONNECTION_ERRORS."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, NEVER_SENT):
        cause = cause.__cause__
    return cause is None


class OpenAIClient(AsyncOpenAI):
    """Sends JSON and returns raw responses. Retries, deadlines and parsing are the callers' work.

    The caller's deadline is for the whole call. A timeout of the client would be for each read, so
    one byte now and then would satisfy it.
    """

    def __init__(self, http_client: httpx2.AsyncClient, *, base_url: str, key: str) -> None:
        super().__init__(
            api_key=key or NO_KEY,
            base_url=base_url,
            http_client=http_client,
            max_retries=0,
            timeout=None,
        )
        self._url = base_url
        omitted = ["x-stainless-retry-count"] + ["Authorization"] * (not key)
        self._request_options: RequestOptions = {"headers": dict.fromkeys(omitted, Omit())}

    @property
    def default_headers(self) -> dict[str, str | Omit]:
        """Without ``x-stainless-*``, and without what OPENAI_* variables would add to requests."""
        return {"Content-Type": "application/json"}

    async def send(
        self, path: str, body: dict[str, Any], *, stream: bool = False
    ) -> httpx2.Response:
        """POST the body. With ``stream``, the response's body is not read yet: close it.

        Follows redirects on the same host and port. Raises openai.APIStatusError for a status that
        is not 2xx, else one of CONNECTION_ERRORS.
        """
        url = self._url + path  # complete: joining it with base_url takes 30 µs
        for _ in range(MAX_REDIRECTS):
            try:
                return await self._send_once(url, body, stream=stream)
            except APIStatusError as error:
                redirect = followed_redirect(error.response)
                if redirect is None:
                    raise
                url = redirect
        return await self._send_once(url, body, stream=stream)

    async def _send_once(self, url: str, body: dict[str, Any], *, stream: bool) -> httpx2.Response:
        try:
            return await self.post(
                url,
                cast_to=httpx2.Response,
                body=body,
                options=self._request_options,
                stream=stream,
            )
        except APIConnectionError as error:
            # httpx2's error, as for a stream that breaks off while it is read
            cause = error.__cause__ if isinstance(error.__cause__, httpx2.HTTPError) else error
        raise cause


def followed_redirect(response: httpx2.Response) -> str | None:
    """Where the response redirects to; None if to another host or port, which must not get the key
    and the prompt.
    """
    if not response.has_redirect_location:
        return None
    source = response.request.url
    try:
        target = source.join(response.headers["location"])
    except httpx2.InvalidURL:
        return None
    is_same = (target.scheme, target.netloc) == (source.scheme, source.netloc)
    return str(target) if is_same else None


class OpenAIClients:
    """Clients on the process's event loop, one for each base URL and key, on shared connections.

    A process needs one client; tests change the settings. ``on_response`` is called with each
    response before its body is read.
    """

    def __init__(
        self,
        *,
        keepalive_s: float = KEEPALIVE_S,
        on_response: Callable[[httpx2.Response], Awaitable[None]] | None = None,
    ) -> None:
        self._keepalive_s = keepalive_s
        self._hooks = [on_response] if on_response else []
        self._http: httpx2.AsyncClient | None = None
        self._clients: dict[tuple[str, str], OpenAIClient] = {}
        event_loop.on_end(self.close)

    def get(self, base_url: str, key: str) -> OpenAIClient:
        """The client for this base URL and key. Raises httpx2.InvalidURL.

        The first takes 30 to 157 ms, so a process keeps its clients.
        """
        client = self._clients.get((base_url, key))
        if client is None:
            self._http = self._http or self._new_http()
            client = OpenAIClient(self._http, base_url=base_url, key=key)
            self._clients[base_url, key] = client
        return client

    def _new_http(self) -> httpx2.AsyncClient:
        """httpx2 on connections of aiohttp, whose parser is compiled.

        It follows no redirects: OpenAIClient does.
        """
        return DefaultAioHttpClient(
            timeout=None,
            follow_redirects=False,
            limits=httpx2.Limits(max_connections=UNLIMITED, keepalive_expiry=self._keepalive_s),
            event_hooks={"response": self._hooks},
            mounts=DIRECT,
        )

    async def close(self) -> None:
        """Close all connections; the next ``get`` opens new ones."""
        http, self._http, self._clients = self._http, None, {}
        if http:
            await http.aclose()
