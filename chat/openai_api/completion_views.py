"""``/v1/models`` and ``/v1/chat/completions``: parse, call the service once, render."""

from typing import Any, cast

from django.contrib.auth.models import User
from django.http.response import HttpResponseBase
from drf_spectacular.utils import extend_schema
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from chat.api.responses import idempotency_key
from chat.auth.api_tokens import BearerAuthentication
from chat.openai_api.client_ids import chat_name
from chat.openai_api.completions import CompletionRequest
from chat.openai_api.errors import ModelNotFound, answer_openai_error
from chat.openai_api.render import render
from chat.openai_api.request_body import MODELS, parse_body
from chat.openai_api.start_turn import request_digest, stored_key
from chat.openai_api.tasks import is_task

CREATED = 1_767_225_600  # 2026-01-01: clients want a time, and it means nothing


class AnyAccept(BaseContentNegotiation):
    """Ignores Accept: clients send all kinds, and get what ``stream`` says."""

    def select_parser(self, request: Request, parsers: Any) -> Any:
        return next((p for p in parsers if request.content_type.startswith(p.media_type)), None)

    def select_renderer(self, request: Request, renderers: Any, format_suffix: Any = None) -> Any:
        return renderers[0], renderers[0].media_type


@extend_schema(exclude=True)  # OpenAI documents its protocol
class OpenAIView(APIView):
    """A view with OpenAI's errors, for bearers of a token."""

    authentication_classes = (BearerAuthentication,)
    content_negotiation_class = AnyAccept

    def get_exception_handler(self) -> Any:
        return answer_openai_error


class ModelsView(OpenAIView):
    """The models' names."""

    def get(self, request: Request) -> Response:
        return Response({"object": "list", "data": [model_object(name) for name in MODELS]})


class ModelView(OpenAIView):
    """One model."""

    def get(self, request: Request, name: str) -> Response:
        if name not in MODELS:
            raise ModelNotFound
        return Response(model_object(name))


class CompletionsView(OpenAIView):
    """Answers a conversation."""

    def post(self, request: Request) -> HttpResponseBase:
        """One answer, whole or streamed. 400, 404, 409, 422, 429, 502-504 in OpenAI's form."""
        body = parse_body(request.data)
        key = stored_key(idempotency_key(request))
        completion = CompletionRequest(
            user=cast("User", request.user),
            body=body,
            name=chat_name(request._request, body),  # noqa: SLF001 - DRF's way to Django's request
            is_task=is_task(request._request, body),  # noqa: SLF001
            key=key,
            digest=request_digest(request.data) if key else b"",
        )
        return render(request, completion.start(), body)


def model_object(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": CREATED, "owned_by": "verse"}
