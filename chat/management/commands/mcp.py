"""Serve one user's memory as MCP tools over standard input and output, for an assistant.

The assistant starts it by itself; its configuration names this command:

  manage.py mcp --user alice

Locks: those of the API. It ends when its input does.
"""

import asyncio
from argparse import ArgumentParser
from typing import Any

from django.contrib.auth.models import User
from django.core.management.base import CommandError

from chat.auth.usernames import find_user
from chat.memory.embed import finish_embedding_jobs
from retrieval import event_loop
from retrieval.management.operator_command import OperatorCommand

EMBEDDING_GRACE_S = 5.0  # at the end; embeddings that take longer stay pending


class Command(OperatorCommand):
    has_json_output = False

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--user", metavar="NAME", required=True, help="whose memory it is")

    def run(self, **options: Any) -> None:
        """Raises CommandError: there is no such user."""
        user = find_user(options["user"])
        if user is None or not user.is_active:
            raise CommandError(f"No user is called {options['user']!r}")
        asyncio.run(serve(user))


async def serve(user: User) -> None:
    """Serve until the end of standard input."""
    from mcp.server.stdio import stdio_server

    from chat.assistant_tools.mcp_server import server_for

    event_loop.use_running_loop()
    server = server_for(user)
    async with stdio_server() as (received, sent):
        await server.run(received, sent, server.create_initialization_options())
    await asyncio.to_thread(finish_embedding_jobs, timeout_s=EMBEDDING_GRACE_S)
    await event_loop.end()
