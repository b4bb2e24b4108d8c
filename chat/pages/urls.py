"""The URLs of the pages. Each conversation has its own, on which the chat page opens it."""

from django.urls import path

from chat.pages.import_page import ImportPage
from chat.pages.views import ChatPage, LoginPage, MemoryPage, SignOut

urlpatterns = [
    path("", ChatPage.as_view(), name="chat-page"),
    path("chats/<int:conversation_id>/", ChatPage.as_view()),
    path("passages/<int:conversation_id>/", ChatPage.as_view()),
    path("memory/", MemoryPage.as_view(), name="memory-page"),
    path("memory/import/", ImportPage.as_view(), name="import-page"),
    path("accounts/login/", LoginPage.as_view(), name="login"),
    path("accounts/logout/", SignOut.as_view(), name="logout"),
    path("admin/logout/", SignOut.as_view()),  # before the admin's own
]
