"""A user's memory and personal data over HTTP: parse, call the service once, render."""

from typing import Any, cast

from django.contrib.auth.models import User
from drf_spectacular.utils import extend_schema
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from chat.api.negotiation import JSON_LINES, LinesNegotiation
from chat.api.openapi_schema import ERROR
from chat.api.responses import stream
from chat.api.serializers import (
    ErasedSerializer,
    EraseSerializer,
    MemoryStateSerializer,
    MemorySwitchSerializer,
    SearchResultSerializer,
    SearchSerializer,
)
from chat.auth.usernames import normalize
from chat.memory_service import MemoryService


class SearchView(APIView):
    """Search in the user's own memory."""

    @extend_schema(
        parameters=[SearchSerializer],
        responses={200: SearchResultSerializer, 400: ERROR, 401: ERROR},
    )
    def get(self, request: Request) -> Response:
        """The recall that answers use, nothing excluded, best first. 400: an unusable value."""
        query = SearchSerializer(data=request.query_params)
        query.is_valid(raise_exception=True)
        text = query.validated_data.pop("q")
        result = service_of(request).search(text, **query.validated_data)
        memories = [memory.as_json() for memory in result.memories]
        return Response({"mode": result.mode, "results": memories})


class MemoryView(APIView):
    """The user's memory as a whole."""

    http_method_names = ("get", "patch", "delete", "head", "options")

    @extend_schema(responses={200: MemoryStateSerializer, 401: ERROR})
    def get(self, request: Request) -> Response:
        """The switch, how much is in memory, and how it is recalled."""
        return Response(service_of(request).state())

    @extend_schema(
        request=MemorySwitchSerializer,
        responses={200: MemoryStateSerializer, 400: ERROR, 401: ERROR},
    )
    def patch(self, request: Request) -> Response:
        """Turn memory on or off. Off: everything is hidden at once, and nothing is embedded."""
        body = MemorySwitchSerializer(data=request.data, partial=True)
        body.is_valid(raise_exception=True)
        return Response(service_of(request).configure(**body.validated_data))

    @extend_schema(
        request=EraseSerializer, responses={200: ErasedSerializer, 400: ERROR, 401: ERROR}
    )
    def delete(self, request: Request) -> Response:
        """Erase all of the user's conversations and what belongs to them: 200 with a receipt.

        400: not confirmed by the user's own username.
        """
        body = EraseSerializer(data=request.data)
        body.is_valid(raise_exception=True)
        if normalize(body.validated_data["confirm"]) != normalize(request.user.get_username()):
            detail = "Your own username is needed here, exactly; nothing was erased."
            raise ValidationError({"confirm": [detail]})
        return Response(service_of(request).erase())


class ExportView(APIView):
    """Everything stored about the user."""

    content_negotiation_class = LinesNegotiation

    @extend_schema(responses={(200, JSON_LINES): str, 401: ERROR})
    def get(self, request: Request) -> Any:
        """JSON Lines, streamed: the user, then each row with the name of its ``table``."""
        headers = {"Content-Disposition": 'attachment; filename="verse.jsonl"'}
        return stream(
            request, service_of(request).export(), content_type=JSON_LINES, headers=headers
        )


def service_of(request: Request) -> MemoryService:
    return MemoryService(cast("User", request.user))
