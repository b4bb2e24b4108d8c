"""The URLs of the pages. Each conversation has its own, on which the chat page opens it."""

from django.contrib.auth.views import LogoutView
from django.urls import path

from chat.pages.import_page import ImportPage
from chat.pages.views import ChatPage, LoginPage, MemoryPage

urlpatterns = [
    path("", ChatPage.as_view(), name="chat-page"),
    path("chats/<int:conversation_id>/", ChatPage.as_view()),
    path("passages/<int:conversation_id>/", ChatPage.as_view()),
    path("memory/", MemoryPage.as_view(), name="memory-page"),
    path("memory/import/", ImportPage.as_view(), name="import-page"),
    path("accounts/login/", LoginPage.as_view(), name="login"),
    path("accounts/logout/", LogoutView.as_view(), name="logout"),
]
