"""The JSON that comes in and goes out. docs/api.md"""

from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from chat.memory.recalled import memories_of
from chat.models import MAX_CONTENT_CHARS, ApiToken, Message, Passage, Role, StandaloneChat, Status


class Text(serializers.CharField):
    """Text as it was sent, not blank; a number or a list is no text."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(trim_whitespace=False, **kwargs)

    def to_internal_value(self, data: Any) -> str:
        """The text itself. ValidationError: it is blank or no text."""
        if not isinstance(data, str):
            self.fail("invalid")
        if not data.strip() and not self.allow_blank:
            self.fail("blank")
        return data


class CredentialsSerializer(serializers.Serializer[Any]):
    """Who wants a token, and what to call it."""

    username = serializers.CharField(max_length=150)
    password = Text(max_length=4096, write_only=True)
    name = Text(max_length=100, allow_blank=True, default="")


class NewTokenSerializer(serializers.Serializer[Any]):
    """A token, this once."""

    token = serializers.CharField()
    id = serializers.IntegerField()


class TokenSerializer(serializers.ModelSerializer[ApiToken]):
    """What is known of a token; never the token."""

    class Meta:
        model = ApiToken
        fields = ["id", "name", "created_at", "last_used_at"]


class ChatSerializer(serializers.ModelSerializer[StandaloneChat]):
    """A standalone chat."""

    title = Text(max_length=200, allow_blank=True, required=False)

    class Meta:
        model = StandaloneChat
        fields = ["id", "title", "memory", "created_at", "updated_at"]
        read_only_fields = ["created_at", "updated_at"]


class PassageSerializer(serializers.ModelSerializer[Passage]):
    """A passage."""

    reference = Text(max_length=200)
    text = Text(max_length=MAX_CONTENT_CHARS)

    class Meta:
        model = Passage
        fields = ["id", "reference", "text", "memory", "created_at", "updated_at"]
        read_only_fields = ["created_at", "updated_at"]


class ContentSerializer(serializers.Serializer[Any]):
    """What the user says; whatever else stands in the body is not looked at."""

    content = Text(max_length=MAX_CONTENT_CHARS)


class MemorySourceSerializer(serializers.Serializer[Any]):
    """The conversation that a memory comes from."""

    kind = serializers.ChoiceField(["chat", "passage"])
    id = serializers.IntegerField()
    title = serializers.CharField()


class MemorySerializer(serializers.Serializer[Any]):
    """A message recalled; ``score`` has no fixed scale: it orders the results of one recall.

    ``with`` is there where the other half of its turn was given to the model along with it: that message's id.
    """

    message_id = serializers.IntegerField()
    source = MemorySourceSerializer()  # type: ignore[assignment] # the contract's name
    role = serializers.ChoiceField(Role.choices)
    content = serializers.CharField()
    created_at = serializers.DateTimeField()
    score = serializers.FloatField()

    def get_fields(self) -> dict[str, Any]:
        """The fields, and one whose name is a word of Python's."""
        return super().get_fields() | {
            "with": serializers.ListField(child=serializers.IntegerField(), required=False)
        }


class MessageSerializer(serializers.Serializer[Message]):
    """A message. One being given shows its text so far, which the view passes in ``so_far`` (id → text)."""

    id = serializers.IntegerField(read_only=True)
    role = serializers.ChoiceField(Role.choices, read_only=True)
    content = serializers.SerializerMethodField()
    status = serializers.ChoiceField(Status.choices, read_only=True)
    created_at = serializers.DateTimeField(read_only=True)
    context = serializers.SerializerMethodField()  # type: ignore[assignment] # the contract's name

    def get_content(self, message: Message) -> str:
        """The text, or as much of it as there is."""
        if message.status == Status.STREAMING:
            return str(self._context.get("so_far", {}).get(message.pk, ""))
        return message.content

    @extend_schema_field(MemorySerializer(many=True))
    def get_context(self, message: Message) -> list[dict[str, Any]]:
        """What an answer was given, less what was forgotten since; two queries where nobody has looked yet."""
        return [memory.as_json() for memory in memories_of(message)]


class TurnSerializer(serializers.Serializer[Any]):
    """A message and its answer. ``truncated`` is there, and true, where the model was sent the message cut."""

    user_message = MessageSerializer()
    assistant_message = MessageSerializer()
    context = MemorySerializer(many=True)  # type: ignore[assignment] # the contract's name
    truncated = serializers.BooleanField(required=False)


class SearchSerializer(serializers.Serializer[Any]):
    """What to search a memory for, and where."""

    q = Text(max_length=MAX_CONTENT_CHARS)
    limit = serializers.IntegerField(min_value=1, max_value=50, required=False)
    since = serializers.DateTimeField(required=False)
    until = serializers.DateTimeField(required=False)
    role = serializers.ChoiceField(Role.choices, required=False)
    kind = serializers.ChoiceField(["chat", "passage"], required=False)


class FoundSerializer(serializers.Serializer[Any]):
    """What a search found, best first, and how: ``off``, ``lexical`` or ``hybrid``."""

    mode = serializers.ChoiceField(["off", "lexical", "hybrid"])
    results = MemorySerializer(many=True)


class MemorySwitchSerializer(serializers.Serializer[Any]):
    """A user's own switch."""

    enabled = serializers.BooleanField()


class MemoryStateSerializer(MemorySwitchSerializer):
    """The switch, and what is in a user's memory; numbers are messages."""

    messages = serializers.IntegerField()
    embedded = serializers.IntegerField()
    pending = serializers.IntegerField()
    failed = serializers.IntegerField()
    mode = serializers.ChoiceField(["off", "lexical", "hybrid"])


class EraseSerializer(serializers.Serializer[Any]):
    """The user's own name, so that nothing is erased by mistake."""

    confirm = Text(max_length=150)


class ErasedSerializer(serializers.Serializer[Any]):
    """A receipt: how many rows of each table are gone, and when."""

    deleted = serializers.DictField(child=serializers.IntegerField())
    at = serializers.DateTimeField()


class ErrorSerializer(serializers.Serializer[Any]):
    """Why something could not be done; beside these, for a body that was wrong, its fields."""

    detail = serializers.CharField()
    code = serializers.CharField()
