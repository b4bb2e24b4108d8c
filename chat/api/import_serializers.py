"""An upload, and an import as the API shows it."""

from typing import Any

from rest_framework import serializers

from chat.models.imports import ImportStatus, MemoryImport
from chat.transfer.formats import FORMATS


class UploadSerializer(serializers.Serializer[Any]):
    """A file of messages. In JSON Lines ``user`` is absent, or one's own name."""

    file = serializers.FileField(allow_empty_file=True)
    format = serializers.ChoiceField(FORMATS)


class StartedSerializer(serializers.Serializer[Any]):
    id = serializers.IntegerField()


class ImportSerializer(serializers.ModelSerializer[MemoryImport]):
    """While it runs the numbers are those of what was read, at the end of what was added."""

    status = serializers.ChoiceField(ImportStatus.choices, read_only=True)
    left_out = serializers.DictField(child=serializers.IntegerField(), read_only=True)

    class Meta:
        model = MemoryImport
        fields = (
            *("id", "format", "status", "conversations", "messages", "left_out", "detail"),
            "created_at",
        )
        read_only_fields = fields
