"""Request and response bodies. docs/api.md"""

from datetime import datetime
from typing import Any, TypeVar

from django.db.models import Model
from drf_spectacular.utils import extend_schema_field, extend_schema_serializer
from rest_framework import serializers

from chat.answers.turns import Turn
from chat.json_times import json_time
from chat.memory.recall import MODES
from chat.memory.recalled import memories_of
from chat.models import (
    KINDS,
    MAX_CONTENT_CHARS,
    ApiToken,
    Message,
    Role,
    Status,
)

M = TypeVar("M", bound=Model)


class Text(serializers.CharField):
    """Text exactly as sent, not blank. Unlike DRF's CharField it refuses numbers."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(trim_whitespace=False, **kwargs)

    def to_internal_value(self, data: Any) -> str:
        if not isinstance(data, str):
            self.fail("invalid")
        if not data.strip() and not self.allow_blank:
            self.fail("blank")
        return data


class CredentialsSerializer(serializers.Serializer[Any]):
    """A username and a password, and a name for the new token."""

    username = serializers.CharField(max_length=150)
    password = Text(max_length=4096, write_only=True)
    name = Text(max_length=100, allow_blank=True, default="")


class NewTokenSerializer(serializers.Serializer[Any]):
    """The key of a new token, shown only once."""

    token = serializers.CharField()
    id = serializers.IntegerField()


class PlainSerializer(serializers.ModelSerializer[M]):
    """A model whose fields are sent as they are, and times as text."""

    def to_representation(self, instance: M) -> dict[str, Any]:
        """The fields of Meta. To visit each field object takes ten times as long."""
        values = {name: getattr(instance, name) for name in self.Meta.fields}
        return {
            name: json_time(value) if isinstance(value, datetime) else value
            for name, value in values.items()
        }


class TokenSerializer(PlainSerializer[ApiToken]):
    """A token without its key."""

    class Meta:
        model = ApiToken
        fields = ["id", "name", "created_at", "last_used_at"]


class ContentSerializer(serializers.Serializer[Any]):
    """The user's message. Other fields are ignored."""

    content = Text(max_length=MAX_CONTENT_CHARS)


class HeadingSerializer(serializers.Serializer[Any]):
    """What stands above a text to remember, if anything."""

    title = Text(allow_blank=True, allow_null=True)


class MemorySourceSerializer(serializers.Serializer[Any]):
    """The conversation that a memory comes from."""

    kind = serializers.ChoiceField(list(KINDS))
    id = serializers.IntegerField()
    title = serializers.CharField()


class MemorySerializer(serializers.Serializer[Any]):
    """A recalled message. ``score`` has no fixed scale: it orders the results of one recall.

    ``with`` holds the id of the other message of its turn, if that is in the prompt too.
    """

    message_id = serializers.IntegerField()
    source = MemorySourceSerializer()  # type: ignore[assignment] # a promised name
    role = serializers.ChoiceField(Role.choices)
    content = serializers.CharField()
    created_at = serializers.DateTimeField()
    score = serializers.FloatField()

    def get_fields(self) -> dict[str, Any]:
        # "with" is a keyword and cannot be an attribute.
        return super().get_fields() | {
            "with": serializers.ListField(child=serializers.IntegerField(), required=False)
        }


class MessageSerializer(serializers.Serializer[Message]):
    """A message, and for an answer the memories in its prompt."""

    id = serializers.IntegerField(read_only=True)
    role = serializers.ChoiceField(Role.choices, read_only=True)
    content = serializers.CharField(read_only=True)
    status = serializers.ChoiceField(Status.choices, read_only=True)
    created_at = serializers.DateTimeField(read_only=True)
    context = serializers.SerializerMethodField()  # type: ignore[assignment] # a promised name
    # Present only in an answer that the model's server cut.
    finish_reason = serializers.ChoiceField(["length", "content_filter"], required=False)

    @extend_schema_field(MemorySerializer(many=True))
    def get_context(self, message: Message) -> list[dict[str, Any]]:
        """Two queries, none if the memories are attached already."""
        return [memory.as_json() for memory in memories_of(message)]

    def to_representation(self, instance: Message) -> dict[str, Any]:
        """The fields above. To visit each field object takes ten times as long."""
        return {
            "id": instance.pk,
            "role": instance.role,
            "content": instance.content,
            "status": instance.status,
            "created_at": json_time(instance.created_at),
            "context": self.get_context(instance),
        } | ({"finish_reason": reason} if (reason := instance.finish_reason) else {})


class TokensSerializer(serializers.Serializer[Any]):
    """Tokens by the model's own count, else by ours. The cached ones are part of the prompt's."""

    prompt_tokens = serializers.IntegerField()
    completion_tokens = serializers.IntegerField()
    cached_tokens = serializers.IntegerField()


class TurnSerializer(serializers.Serializer[Any]):
    """A message and its answer. ``truncated`` is present, and true, if the prompt held it cut.

    ``usage`` is null for an answer from before tokens were counted.
    """

    user_message = MessageSerializer()
    assistant_message = MessageSerializer()
    context = MemorySerializer(many=True)  # type: ignore[assignment] # a promised name
    usage = TokensSerializer(allow_null=True)
    truncated = serializers.BooleanField(required=False)

    def to_representation(self, instance: Turn) -> dict[str, Any]:
        """The fields above, of a Turn."""
        return {
            "user_message": MessageSerializer(instance.question).data,
            "assistant_message": (answer := MessageSerializer(instance.answer).data),
            "context": answer["context"],
            "usage": instance.answer.usage,
        } | ({"truncated": True} if instance.answer.truncated else {})


class SearchSerializer(serializers.Serializer[Any]):
    """A search in a user's memory, and its filters."""

    q = Text(max_length=MAX_CONTENT_CHARS)
    limit = serializers.IntegerField(min_value=1, max_value=50, required=False)
    since = serializers.DateTimeField(required=False)
    until = serializers.DateTimeField(required=False)
    role = serializers.ChoiceField(Role.choices, required=False)
    kind = serializers.ChoiceField(list(KINDS), required=False)


@extend_schema_serializer(component_name="Found")  # the name in the promised OpenAPI schema
class SearchResultSerializer(serializers.Serializer[Any]):
    """The results of a search, best first, and the mode of recall."""

    mode = serializers.ChoiceField(MODES)
    results = MemorySerializer(many=True)


class MemorySwitchSerializer(serializers.Serializer[Any]):
    """Turns a user's memory on or off."""

    enabled = serializers.BooleanField()


class MemoryStateSerializer(MemorySwitchSerializer):
    """The switch, and how many of the user's messages are in memory."""

    messages = serializers.IntegerField()
    embedded = serializers.IntegerField()
    pending = serializers.IntegerField()
    failed = serializers.IntegerField()
    mode = serializers.ChoiceField(MODES)


class EraseSerializer(serializers.Serializer[Any]):
    """The user's own username, so that nothing is erased by mistake."""

    confirm = Text(max_length=150)


class ErasedSerializer(serializers.Serializer[Any]):
    """A receipt: how many rows of each table were deleted, and when."""

    deleted = serializers.DictField(child=serializers.IntegerField())
    at = serializers.DateTimeField()


class ErrorSerializer(serializers.Serializer[Any]):
    """Why a request failed. For a wrong body, its wrong fields are added."""

    detail = serializers.CharField()
    code = serializers.CharField()
