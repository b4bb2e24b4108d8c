"""The tools by the official SDK. Only what serves MCP imports this: the SDK takes some 20 MB."""

import json
from typing import Any

import mcp_types as types
from django.conf import settings
from django.contrib.auth.models import User
from mcp.server.lowlevel import Server
from mcp.shared.exceptions import MCPError

from chat.assistant_tools import descriptions
from chat.assistant_tools.memory_tools import ToolError, call_tool
from retrieval import steps

TOOLS = [
    types.Tool(
        name=name,
        title=described.title,
        description=described.text,
        input_schema=described.input_schema,
        output_schema=described.result,
        annotations=types.ToolAnnotations(title=described.title, **described.hints),
    )
    for name, described in descriptions.TOOLS.items()
]


def server_for(user: User) -> "Server[Any]":
    """A server whose tools are this user's. It keeps nothing between two calls."""

    async def list_tools(_context: Any, _params: Any) -> types.ListToolsResult:
        return types.ListToolsResult(tools=TOOLS)

    async def call(_context: Any, params: types.CallToolRequestParams) -> types.CallToolResult:
        if params.name not in descriptions.TOOLS:
            raise MCPError(types.INVALID_PARAMS, "There is no such tool.")
        try:
            result = await steps.run(call_tool, user, params.name, params.arguments or {})
        except ToolError as error:
            return _result(str(error), is_error=True)
        return _result(json.dumps(result, ensure_ascii=False), structured_content=result)

    return Server(
        "verse",
        version=settings.VERSION,
        title="Verse",
        instructions=descriptions.INSTRUCTIONS,
        on_list_tools=list_tools,
        on_call_tool=call,
    )


def _result(text: str, **fields: Any) -> types.CallToolResult:
    """For clients that read no structured content the same as text."""
    return types.CallToolResult(content=[types.TextContent(type="text", text=text)], **fields)
