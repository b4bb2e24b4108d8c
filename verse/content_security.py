"""The Content-Security-Policy of all pages: scripts, styles and requests of this site only."""

from collections.abc import Callable

from django.http import HttpRequest
from django.http.response import HttpResponseBase

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'{styles}; img-src 'self' data:; "
    "font-src 'self'; connect-src 'self'; form-action 'self'; object-src 'none'; "
    "base-uri 'none'; frame-ancestors 'none'"
)
OURS = POLICY.format(styles="")
# The API's page sets styles by script.
OF_API_DOCS = POLICY.format(styles=" 'unsafe-inline'")
API_DOCS = "/api/docs/"


class ContentSecurityPolicy:
    """Middleware. Answers of the API have the header too: a browser may show one as a page."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        response = self.get_response(request)
        is_docs = request.path_info.startswith(API_DOCS)
        response.headers["Content-Security-Policy"] = OF_API_DOCS if is_docs else OURS
        return response
