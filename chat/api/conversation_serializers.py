"""The bodies of conversations. docs/api.md"""

from rest_framework import serializers

from chat.api.serializers import PlainSerializer, Text
from chat.models import MAX_CONTENT_CHARS, Passage, StandaloneChat


class ChatSerializer(PlainSerializer[StandaloneChat]):
    """A standalone chat."""

    title = Text(max_length=200, allow_blank=True, required=False)

    class Meta:
        model = StandaloneChat
        fields = ["id", "title", "memory", "created_at", "updated_at"]
        read_only_fields = ["created_at", "updated_at"]


class PassageSerializer(PlainSerializer[Passage]):
    """A passage."""

    reference = Text(max_length=200)
    text = Text(max_length=MAX_CONTENT_CHARS)

    class Meta:
        model = Passage
        fields = ["id", "reference", "text", "memory", "created_at", "updated_at"]
        read_only_fields = ["created_at", "updated_at"]


class KeptChatSerializer(ChatSerializer):
    """A standalone chat, and whether the user keeps it longer than others are kept."""

    keep = serializers.BooleanField(required=False)

    class Meta(ChatSerializer.Meta):
        fields = [*ChatSerializer.Meta.fields, "keep"]


class KeptPassageSerializer(PassageSerializer):
    """A passage, and whether the user keeps it longer than others are kept."""

    keep = serializers.BooleanField(required=False)

    class Meta(PassageSerializer.Meta):
        fields = [*PassageSerializer.Meta.fields, "keep"]
