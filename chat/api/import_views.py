"""Imports over HTTP: take the file, call the service once, render."""

import os
from io import BytesIO
from typing import Any, BinaryIO, cast

from django.contrib.auth.models import User
from django.core.files.uploadedfile import TemporaryUploadedFile, UploadedFile
from drf_spectacular.utils import extend_schema
from rest_framework import generics, status
from rest_framework.parsers import MultiPartParser
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from chat.api.import_serializers import ImportSerializer, StartedSerializer, UploadSerializer
from chat.api.openapi_schema import ERROR
from chat.api.pagination import Pages, PagesMixin
from chat.import_service import ImportService
from chat.models import MemoryImport
from chat.row_lists import IMPORT_LIST, RowList

IMPORT_ERRORS = dict.fromkeys((400, 401, 403, 409, 413, 503), ERROR)


class ImportsView(PagesMixin, generics.ListAPIView[Any]):
    """The user's imports, newest first."""

    pagination_class = Pages
    serializer_class = ImportSerializer
    parser_classes = (MultiPartParser,)

    queryset = MemoryImport.objects.none()  # for the schema

    def get_rows(self) -> RowList[MemoryImport]:
        service_of(self.request).end_abandoned()
        return IMPORT_LIST

    @extend_schema(request=UploadSerializer, responses={202: StartedSerializer} | IMPORT_ERRORS)
    def post(self, request: Request) -> Response:
        """Import a file in the background: 202 with the import's id.

        409: another import of this user is running. 413: larger than IMPORT_MAX_MB.
        """
        body = UploadSerializer(data=request.data)
        body.is_valid(raise_exception=True)
        file, format_name = body.validated_data["file"], body.validated_data["format"]
        started = service_of(request).start(kept_open(file), format_name)
        return Response({"id": started.pk}, status=status.HTTP_202_ACCEPTED)


class ImportView(APIView):
    """One import."""

    http_method_names = ("get", "delete", "head", "options")

    @extend_schema(responses={200: ImportSerializer, 401: ERROR, 404: ERROR, 503: ERROR})
    def get(self, request: Request, import_id: int) -> Response:
        """How far it is, or how it ended."""
        return Response(ImportSerializer(service_of(request).get(import_id)).data)

    @extend_schema(
        responses={204: None} | dict.fromkeys((401, 403, 404, 409, 503), ERROR),
    )
    def delete(self, request: Request, import_id: int) -> Response:
        """Remove exactly what the import added. 409 while it runs."""
        service_of(request).remove(import_id)
        return Response(status=status.HTTP_204_NO_CONTENT)


def kept_open(file: "UploadedFile[bytes]") -> BinaryIO:
    """The uploaded file, which Django closes, and deletes, at the end of the request."""
    if isinstance(file, TemporaryUploadedFile):
        return os.fdopen(os.dup(file.fileno()), "rb")
    return BytesIO(file.read())


def service_of(request: Request) -> ImportService:
    return ImportService(cast("User", request.user))
