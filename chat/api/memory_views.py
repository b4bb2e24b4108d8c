"""A user's memory over HTTP: searched, looked at, switched on and off."""

from typing import Any, cast

from django.conf import settings
from django.contrib.auth.models import User
from django.db import connection
from django.http import StreamingHttpResponse
from django.utils import timezone
from drf_spectacular.utils import extend_schema
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from chat import personal_data
from chat.api.conversation_views import ERROR
from chat.api.events import EventNegotiation
from chat.api.serializers import (
    ErasedSerializer,
    EraseSerializer,
    FoundSerializer,
    MemoryStateSerializer,
    MemorySwitchSerializer,
    SearchSerializer,
)
from chat.memory import recall
from chat.memory.recalled import NUMBERS
from chat.models import MemorySwitch, Role
from retrieval.recall.candidates import Scope

LINES = "application/x-ndjson"


class LinesNegotiation(EventNegotiation):
    """Accepts JSON Lines too."""

    media_type = LINES


class SearchView(APIView):
    """Search in the user's own memory."""

    @extend_schema(
        parameters=[SearchSerializer], responses={200: FoundSerializer, 400: ERROR, 401: ERROR}
    )
    def get(self, request: Request) -> Response:
        """The recall that answers use, with nothing excluded: best first. 400: a value that cannot be used."""
        asked = SearchSerializer(data=request.query_params)
        asked.is_valid(raise_exception=True)
        values = asked.validated_data
        user_id = user_of(request)
        limit = values.get("limit", min(max(settings.RAG_CONTEXT_LIMIT, 1), 50))
        found = recall.search(user_id, values["q"], scope_of(user_id, values), limit=limit)
        return Response({"mode": found.mode, "results": [one.as_json() for one in found.memories]})


class MemoryView(APIView):
    """The user's memory as a whole."""

    http_method_names = ("get", "patch", "delete", "head", "options")

    @extend_schema(responses={200: MemoryStateSerializer, 401: ERROR})
    def get(self, request: Request) -> Response:
        """The switch, how much is in memory, and how it is recalled."""
        return Response(recall.memory_state(user_of(request)))

    @extend_schema(
        request=MemorySwitchSerializer,
        responses={200: MemoryStateSerializer, 400: ERROR, 401: ERROR},
    )
    def patch(self, request: Request) -> Response:
        """Turn memory off (hidden at once, nothing is embedded) or on again."""
        asked = MemorySwitchSerializer(data=request.data, partial=True)
        asked.is_valid(raise_exception=True)
        for name, value in asked.validated_data.items():
            MemorySwitch.objects.update_or_create(
                user_id=user_of(request), defaults={name: value, "changed_at": timezone.now()}
            )
        return Response(recall.memory_state(user_of(request)))

    @extend_schema(
        request=EraseSerializer, responses={200: ErasedSerializer, 400: ERROR, 401: ERROR}
    )
    def delete(self, request: Request) -> Response:
        """Erase all of the user's conversations and what belongs to them: 200 with a receipt. 400: not confirmed."""
        asked = EraseSerializer(data=request.data)
        asked.is_valid(raise_exception=True)
        if asked.validated_data["confirm"] != request.user.get_username():
            raise ValidationError(
                {"confirm": ["Your own username is needed here, exactly; nothing was erased."]}
            )
        return Response(personal_data.erase(user_of(request)))


class ExportView(APIView):
    """All that is held about the user."""

    content_negotiation_class = LinesNegotiation

    @extend_schema(responses={(200, LINES): str, 401: ERROR})
    def get(self, request: Request) -> Any:
        """JSON Lines, streamed: the user, then each row with the name of its ``table``."""
        connection.close()
        lines = personal_data.export(cast("User", request.user))
        headers = {
            "Content-Disposition": 'attachment; filename="verse.jsonl"',
            "X-Accel-Buffering": "no",
        }
        return StreamingHttpResponse(lines, content_type=LINES, headers=headers)


def user_of(request: Request) -> int:
    """Whose memory it is: whoever is signed in."""
    return cast("int", request.user.pk)


def scope_of(user_id: int, values: dict[str, Any]) -> Scope:
    """Where the filters of a search let it look."""
    role, kind = values.get("role"), values.get("kind")
    return Scope(
        user_id,
        since=values.get("since"),
        until=values.get("until"),
        by_user=None if role is None else role == Role.USER,
        source=None if kind is None else NUMBERS[kind],
    )
