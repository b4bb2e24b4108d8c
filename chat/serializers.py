"""The JSON that comes in and goes out. docs/api.md"""

from typing import Any

from rest_framework import serializers

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


class MessageSerializer(serializers.Serializer[Message]):
    """A message. One being given shows its text so far, which the view passes in ``so_far`` (id → text)."""

    id = serializers.IntegerField(read_only=True)
    role = serializers.ChoiceField(Role.choices, read_only=True)
    content = serializers.SerializerMethodField()
    status = serializers.ChoiceField(Status.choices, read_only=True)
    created_at = serializers.DateTimeField(read_only=True)

    def get_content(self, message: Message) -> str:
        """The text, or as much of it as there is."""
        if message.status == Status.STREAMING:
            return str(self.context.get("so_far", {}).get(message.pk, ""))
        return message.content


class TurnSerializer(serializers.Serializer[Any]):
    """A message and its answer. ``truncated`` is there, and true, where the model was sent the message cut."""

    user_message = MessageSerializer()
    assistant_message = MessageSerializer()
    context = serializers.ListField(child=serializers.DictField())  # type: ignore[assignment] # the contract's name
    truncated = serializers.BooleanField(required=False)


class ErrorSerializer(serializers.Serializer[Any]):
    """Why something could not be done; beside these, for a body that was wrong, its fields."""

    detail = serializers.CharField()
    code = serializers.CharField()
