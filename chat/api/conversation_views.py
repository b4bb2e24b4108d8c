"""Conversations and messages over HTTP: parse, call the service once, render.

Lists, and a new or changed conversation, are DRF's generic views and need no service.

Every query starts with the user's own rows: another user's are 404, as if they did not exist.
"""

from functools import partial
from typing import Any, cast

from django.db.models import QuerySet
from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404
from drf_spectacular.utils import extend_schema
from rest_framework import exceptions, generics, status
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from chat.api.negotiation import EVENT_STREAM, EventNegotiation
from chat.api.openapi_schema import ERROR, KEY, TURN_ERRORS, WRITE_ERRORS
from chat.api.pagination import MessagePages, Pages, PagesMixin
from chat.api.responses import idempotency_key, render_events, render_reply
from chat.api.serializers import ContentSerializer, MessageSerializer, TurnSerializer
from chat.errors import NotLast
from chat.find_conversation import find_conversation
from chat.models import KINDS, Message, Passage, Role, StandaloneChat
from chat.retention import kept
from chat.row_lists import CONVERSATION_LISTS, MESSAGE_LISTS, RowList
from chat.services import ChatService


class ConversationMixin:
    """For both kinds of conversation; the URL configuration sets ``model``."""

    model: type[Passage | StandaloneChat] = StandaloneChat
    request: Any
    kwargs: dict[str, Any]

    def get_queryset(self) -> QuerySet[Any]:
        return self.model.objects.of(self.request.user)

    def get_service(self) -> ChatService:
        """For the conversation of the URL. Raises NotFound."""
        pk, user_id = self.kwargs["conversation_id"], self.request.user.pk
        conversation = find_conversation(self.model, pk, user_id=user_id)
        if conversation is None:
            raise exceptions.NotFound
        return ChatService(conversation)


class ConversationsView(ConversationMixin, PagesMixin, generics.ListCreateAPIView[Any]):
    """The user's conversations of one kind, newest first."""

    pagination_class = Pages
    may_read_replica = True

    def get_rows(self) -> RowList[Any]:
        return CONVERSATION_LISTS[self.model]

    def perform_create(self, serializer: Any) -> None:
        if "keep" in self.request.data:
            raise exceptions.ValidationError({"keep": ["Set it by PATCH."]})
        serializer.save(user=self.request.user)


class ConversationView(ConversationMixin, generics.RetrieveUpdateDestroyAPIView[Any]):
    """One conversation."""

    lookup_url_kwarg = "conversation_id"
    http_method_names = ("get", "patch", "delete", "head", "options")

    def retrieve(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """The conversation, and whether the user keeps it."""
        conversation = self.get_object()
        conversation.keep = kept.is_kept(conversation)
        return Response(self.get_serializer(conversation).data)

    def perform_update(self, serializer: Any) -> None:
        conversation = serializer.instance
        ChatService(conversation).change(serializer.validated_data)
        keep = serializer.validated_data.get("keep")
        conversation.keep = kept.is_kept(conversation) if keep is None else keep

    def perform_destroy(self, instance: Any) -> None:
        ChatService(instance).delete_conversation()


class MessagesView(ConversationMixin, generics.GenericAPIView[Any]):
    """A conversation's messages, oldest first; a new one is answered."""

    serializer_class = MessageSerializer
    pagination_class = MessagePages
    content_negotiation_class = EventNegotiation

    @extend_schema(responses={200: MessageSerializer(many=True), 401: ERROR, 404: ERROR})
    def get(self, request: Request, conversation_id: int) -> Response:
        """A page of messages. A running answer shows its text so far."""
        service = self.get_service()
        conversation = service.conversation
        read = partial(
            MESSAGE_LISTS[KINDS[conversation.kind]].read,
            conversation.pk,
            replica_for=conversation.user_id,
        )
        page = cast("list[Message]", self.paginate_queryset(cast("Any", read)))
        messages = service.fill_in(page)
        return self.get_paginated_response(MessageSerializer(cast("Any", messages), many=True).data)

    @extend_schema(
        parameters=[KEY], request=ContentSerializer, responses={201: TurnSerializer} | TURN_ERRORS
    )
    def post(self, request: Request, conversation_id: int) -> HttpResponseBase:
        """Save the user's message and answer it: 201, or an event stream.

        The same Idempotency-Key again returns the same answer.
        """
        service = self.get_service()
        body = ContentSerializer(data=request.data)
        body.is_valid(raise_exception=True)
        content = body.validated_data["content"]
        return render_reply(request, service.reply_to(content, key=idempotency_key(request)))


class MessageView(ConversationMixin, APIView):
    """One message."""

    @extend_schema(responses={200: MessageSerializer, 401: ERROR, 404: ERROR})
    def get(self, request: Request, conversation_id: int, message_id: int) -> Response:
        """The message. A running answer shows its text so far."""
        service = self.get_service()
        (message,) = service.fill_in([self.get_message(service)])
        return Response(MessageSerializer(message).data)

    @extend_schema(request=ContentSerializer, responses={200: MessageSerializer} | WRITE_ERRORS)
    def patch(self, request: Request, conversation_id: int, message_id: int) -> Response:
        """Edit the user's own message; its answer does not change. 403 for an assistant's."""
        service = self.get_service()
        message = self.get_message(service)
        if message.role != Role.USER:
            raise exceptions.PermissionDenied("Only your own messages can be edited.")
        body = ContentSerializer(data=request.data)
        body.is_valid(raise_exception=True)
        return Response(MessageSerializer(service.edit(message, **body.validated_data)).data)

    @extend_schema(responses={204: None} | WRITE_ERRORS)
    def delete(self, request: Request, conversation_id: int, message_id: int) -> Response:
        """Delete the message, of either role."""
        service = self.get_service()
        service.delete(self.get_message(service))
        return Response(status=status.HTTP_204_NO_CONTENT)

    def get_message(self, service: ChatService) -> Message:
        """The message of the URL. Raises Http404."""
        messages = service.conversation.messages.all()
        return cast("Message", get_object_or_404(messages, pk=self.kwargs["message_id"]))


class AnswerView(MessageView):
    """Views of one assistant message."""

    def get_message(self, service: ChatService) -> Message:
        """The answer of the URL. Raises Http404, for a user's own message too."""
        message = super().get_message(service)
        if message.role != Role.ASSISTANT:
            raise exceptions.NotFound
        return message


class EventsView(AnswerView):
    """The events of one answer."""

    http_method_names = ("get", "options")
    content_negotiation_class = EventNegotiation

    @extend_schema(responses={(200, EVENT_STREAM): str, 401: ERROR, 404: ERROR})
    def get(self, request: Request, conversation_id: int, message_id: int) -> Any:
        """Server-sent events: the text so far as one ``delta``, the rest as it is generated, then
        ``done`` or ``error``."""
        service = self.get_service()
        return render_events(request, service, self.get_message(service))


class StopView(AnswerView):
    """Stop an answer."""

    http_method_names = ("post", "options")

    @extend_schema(request=None, responses={200: MessageSerializer, 401: ERROR, 404: ERROR})
    def post(self, request: Request, conversation_id: int, message_id: int) -> Response:
        """End the answer within a second, in any process; a finished one stays as it is."""
        service = self.get_service()
        return Response(MessageSerializer(service.stop(self.get_message(service))).data)


class RegenerateView(MessageView):
    """Generate the last answer again."""

    http_method_names = ("post", "options")
    content_negotiation_class = EventNegotiation

    @extend_schema(parameters=[KEY], request=None, responses={201: TurnSerializer} | TURN_ERRORS)
    def post(self, request: Request, conversation_id: int, message_id: int) -> HttpResponseBase:
        """Answer the same message again, under the answer's id: 201 or events."""
        service = self.get_service()
        answer = self.get_message(service)
        if answer.role != Role.ASSISTANT:
            raise NotLast
        return render_reply(request, service.regenerate(answer, key=idempotency_key(request)))
