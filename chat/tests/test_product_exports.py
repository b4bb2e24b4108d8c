"""Exports of ChatGPT and Claude: the right texts, times and order, and what is left out."""

import io
import zipfile
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from chat.tests.product_exports import (
    AT,
    archive,
    as_json,
    chatgpt,
    claude,
    claude_message,
    node,
    talk,
)
from chat.transfer.formats import PRODUCTS
from chat.transfer.product_export import ProductConversation, read_export
from chat.transfer.refusals import ImportRefusedError

BEGUN = datetime.fromtimestamp(AT, UTC)
MS = timedelta(milliseconds=1)
TOO_GREAT = pytest.param(10**400, id="too great for a float")


def read(product: str, *conversations: dict[str, Any]) -> list[ProductConversation]:
    return read_bytes(product, as_json(*conversations))[0]


def read_bytes(product: str, content: bytes) -> tuple[list[ProductConversation], Counter[str]]:
    left_out: Counter[str] = Counter()
    conversations = list(read_export(io.BytesIO(content), PRODUCTS[product], left_out))
    return conversations, +left_out


def said(conversation: ProductConversation) -> list[tuple[str, str]]:
    return [(str(message.role), message.text) for message in conversation.messages]


def test_a_chatgpt_talk_keeps_its_title_texts_times_and_order() -> None:
    (conversation,) = read("chatgpt", talk("c1", "Hi", "Hello!", "Bye", title="  Grüße 🐕 "))
    assert conversation.name == "chatgpt:c1"
    assert (conversation.title, conversation.created_at) == ("Grüße 🐕", BEGUN)
    assert said(conversation) == [("user", "Hi"), ("assistant", "Hello!"), ("user", "Bye")]
    times = [message.at for message in conversation.messages]
    assert times == [BEGUN + timedelta(seconds=second) for second in range(3)]


def test_only_the_branch_that_ends_at_the_current_node_comes() -> None:
    rows = [
        node("root", None),
        node("first", "root", "My cat is Tom.", at=AT),
        node("old answer", "first", "Hi Tom.", role="assistant", at=AT + 1),
        node("edited", "root", "My cat is Tim.", at=AT + 2),
        node("new answer", "edited", "Hi Tim.", role="assistant", at=AT + 3),
    ]
    conversations, left_out = read_bytes("chatgpt", as_json(chatgpt("c", *rows)))
    assert said(conversations[0]) == [("user", "My cat is Tim."), ("assistant", "Hi Tim.")]
    assert left_out == {"other_branch": 2}
    (earlier,) = read("chatgpt", chatgpt("c", *rows, current_node="old answer"))
    assert said(earlier) == [("user", "My cat is Tom."), ("assistant", "Hi Tom.")]


def test_what_is_no_text_of_the_two_is_left_out_and_counted() -> None:
    picture = {"content_type": "image_asset_pointer", "asset_pointer": "file-service://x"}
    speech = {"content_type": "audio_transcription", "text": "Spoken.", "direction": "in"}
    hidden = {"is_visually_hidden_from_conversation": True}
    profile = {"content_type": "user_editable_context", "user_profile": "I am Ann."}
    thoughts = {"content_type": "thoughts", "thoughts": [{"content": "Hm."}]}
    rows = [
        node("0", None),
        node("1", "0", "You are helpful.", role="system"),
        node("2", "1", profile),
        node("3", "2", "Hidden.", metadata=hidden),
        node("4", "3", [picture, "What is this?", speech], at=AT),
        node("5", "4", "search('x')", role="assistant", recipient="browser"),
        node("6", "5", "result", role="tool"),
        node("7", "6", thoughts, role="assistant"),
        node("8", "7", [picture], at=AT),
        node("9", "8", "A dog.", role="assistant", at=AT + 1),
        node("10", "9", "x" * 32_001),
        node("11", "10", {"content_type": "canvas"}, role="assistant"),
    ]
    conversations, left_out = read_bytes("chatgpt", as_json(chatgpt("c", *rows)))
    assert said(conversations[0]) == [("user", "What is this?\n\nSpoken."), ("assistant", "A dog.")]
    assert left_out == {
        "system": 3,
        "tool": 2,
        "reasoning": 1,
        "attachment": 2,
        "no_text": 1,
        "too_long": 1,
        "other_content": 1,
    }


@pytest.mark.parametrize("missing", [None, "soon", True, -1.0, 1e300, TOO_GREAT, float("nan")])
def test_a_missing_or_backward_time_is_the_one_before_plus_a_millisecond(missing: object) -> None:
    rows = [node("0", None), node("1", "0", "a", at=missing), node("2", "1", "b", at=missing)]
    rows += [node("3", "2", "c", at=AT + 9), node("4", "3", "d", at=AT), node("5", "4", "e", at=AT)]
    (conversation,) = read("chatgpt", chatgpt("c", *rows))
    times = [message.at for message in conversation.messages]
    third = BEGUN + timedelta(seconds=9)
    assert times == [BEGUN, BEGUN + MS, third, third + MS, third + 2 * MS]
    (undated,) = read("chatgpt", chatgpt("c", *rows, create_time=None))
    assert undated.messages[0].at == third
    assert [message.text for message in undated.messages] == list("abcde")


def test_times_at_the_end_of_the_calendar_do_not_go_beyond_it() -> None:
    last = datetime.max.replace(tzinfo=UTC)
    rows = [claude_message(str(number), "Hi", created_at=last.isoformat()) for number in range(2)]
    rows.append(claude_message("3", "Hi", created_at=None))
    (conversation,) = read("claude", claude("c", *rows))
    assert [message.at for message in conversation.messages] == [last, last, last]


def test_titles_may_be_missing_and_empty_conversations_do_not_come() -> None:
    conversations = read(
        "chatgpt", talk("1", "a", title=None), talk("2", "a", title=""), talk("3"), chatgpt("4")
    )
    assert [(each.name, each.title) for each in conversations] == [
        ("chatgpt:1", ""),
        ("chatgpt:2", ""),
    ]


def test_without_a_current_node_the_last_leaf_ends_the_branch() -> None:
    (conversation,) = read("chatgpt", talk("1", "a", "b", current_node=None))
    assert [text for _, text in said(conversation)] == ["a", "b"]


def test_nul_and_lone_surrogates_become_replacement_characters() -> None:
    (conversation,) = read("chatgpt", talk("1", "a\x00b\ud800c", title="t\x00"))
    assert (conversation.title, said(conversation)) == ("t\ufffd", [("user", "a\ufffdb\ufffdc")])


def test_a_role_or_a_type_that_is_no_text_is_left_out() -> None:
    odd_role, odd_type = node("1", None, "a"), node("2", "1", "b")
    odd_role["message"]["author"]["role"] = []
    odd_type["message"]["content"]["content_type"] = {}
    conversations, left_out = read_bytes(
        "chatgpt", as_json(chatgpt("c", odd_role, odd_type, node("3\ud800", "2", "c")))
    )
    assert said(conversations[0]) == [("user", "c")]
    assert left_out == {"system": 1, "other_content": 1}


def test_a_claude_talk_keeps_its_title_texts_times_and_order() -> None:
    messages = [
        claude_message("m1", "Hi", created_at="2024-05-03T10:00:00Z"),
        claude_message("m2", "Hello!", sender="assistant", created_at="2024-05-03T09:00:00Z"),
        claude_message("m3", "Bye", created_at="no time"),
    ]
    (conversation,) = read("claude", claude("c1", *messages, name="Trip"))
    assert (conversation.name, conversation.title) == ("claude:c1", "Trip")
    assert conversation.created_at == datetime(2024, 5, 3, 9, 59, 59, tzinfo=UTC)
    assert said(conversation) == [("user", "Hi"), ("assistant", "Hello!"), ("user", "Bye")]
    first = datetime(2024, 5, 3, 10, tzinfo=UTC)
    assert [message.at for message in conversation.messages] == [first, first + MS, first + 2 * MS]


def test_of_claude_the_path_to_the_newest_leaf_comes() -> None:
    root = "00000000-0000-4000-8000-000000000000"
    rows = [
        claude_message("1", "My cat is Tom.", parent_message_uuid=root),
        claude_message("2", "Hi Tom.", sender="assistant", parent_message_uuid="1"),
        claude_message("3", "My cat is Tim.", parent_message_uuid=root),
        claude_message("4", "Hi Tim.", sender="assistant", parent_message_uuid="3"),
    ]
    for number, row in enumerate(rows):
        row["created_at"] = f"2024-05-03T10:00:0{number}Z"
    rows = rows[2:] + rows[:2]  # their order in the file says nothing
    conversations, left_out = read_bytes("claude", as_json(claude("c", *rows)))
    assert said(conversations[0]) == [("user", "My cat is Tim."), ("assistant", "Hi Tim.")]
    assert left_out == {"other_branch": 2}


def test_of_claude_text_blocks_come_and_tools_do_not() -> None:
    placeholder = "```\nThis block is not supported on your current device yet.\n```"
    blocks = [
        {"type": "thinking", "thinking": "Hm."},
        {"type": "text", "text": "I look."},
        {"type": "tool_use", "name": "web_search", "input": {}},
        {"type": "tool_result", "content": []},
        {"type": "text", "text": "It rains."},
    ]
    files = {"files": [{"file_name": "a.png"}], "attachments": [{"extracted_content": "long"}]}
    rows = [
        claude_message("1", "Weather?", content=[], **files),
        claude_message("2", f"I look.\n{placeholder}", sender="assistant", content=blocks),
        claude_message("3", placeholder, sender="assistant", content=blocks[2:4]),
        claude_message("4", "x", sender="narrator"),
    ]
    conversations, left_out = read_bytes("claude", as_json(claude("c", *rows)))
    assert said(conversations[0]) == [("user", "Weather?"), ("assistant", "I look.\n\nIt rains.")]
    assert left_out == {
        "attachment": 2,
        "reasoning": 1,
        "tool": 4,
        "no_text": 1,
        "unknown_message": 1,
    }


def test_every_conversations_file_of_an_archive_is_read_in_order() -> None:
    packed = archive(
        {
            "export/conversations-001.json": as_json(talk("2", "b")),
            "export/conversations-000.json": as_json(talk("1", "a")),
            "__MACOSX/export/._conversations-000.json": b"\x00\x05",
            "shared_conversations.json": b"[]",
            "chat.html": b"<html>",
        }
    )
    conversations, _ = read_bytes("chatgpt", packed)
    assert [each.name for each in conversations] == ["chatgpt:1", "chatgpt:2"]


def test_an_archive_that_is_damaged_is_refused() -> None:
    packed = archive({"conversations.json": as_json(talk("1", "a" * 999))}, zipfile.ZIP_LZMA)
    middle = packed.index(b"conversations.json") + 60
    for place in range(middle, middle + 40):
        damaged = packed[:place] + bytes([packed[place] ^ 0xFF]) + packed[place + 1 :]
        with pytest.raises(ImportRefusedError):
            read_bytes("chatgpt", damaged)


def test_conversations_longer_than_a_chunk_are_read_whole() -> None:
    texts = ["é" * 700_000, "x", '"\\ [{' * 300_000, "y"]
    rows = [node("0", None)]
    for number, text in enumerate(texts):
        rows.append(node(f"{number + 1}", f"{number}", text, role="assistant", at=AT + number))
    conversations = read("chatgpt", talk("a", "1"), chatgpt("b", *rows), talk("c", "2"))
    assert [len(each.messages) for each in conversations] == [1, 4, 1]
    assert [message.text for message in conversations[1].messages] == texts
