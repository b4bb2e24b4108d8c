"""A bad line is named by its number and rule; unless it is skipped, nothing is imported."""

import pytest
from django.contrib.auth.models import User

from chat.models import StandaloneChat
from chat.tests.transfer_support import imported, line, many, stored
from chat.transfer.json_lines import MAX_FILE_LINE_BYTES, BadLineError, parse
from chat.transfer.refusals import ImportRefusedError

pytestmark = pytest.mark.django_db(transaction=True)


BAD = [
    *(
        ("role must be user or assistant", line(role=role))
        for role in (..., "system", "User", None, 1)
    ),
    *(("kind must be chat or passage", line(kind=kind)) for kind in ("Chat", None, ["chat"])),
    *(("content must be text", line(content=content)) for content in (..., None, 1, ["x"])),
    *(("content is blank", line(content=content)) for content in ("", " \n\u00a0")),
    ("content is longer than 32,000 characters", line(content="x" * 32_001)),
    ("content is blank", line(role="assistant", content="")),
    *(
        ("status must be complete, or for an answer interrupted or failed", line(**fields))
        for fields in ({"status": "failed"}, {"role": "assistant", "status": "streaming"})
    ),
    ("title must be text", line(title=1)),
    ("title is longer than 200 characters", line(title="x" * 201)),
    ("reference holds NUL", line(kind="passage", reference="\0")),
    ("text must be text", line(kind="passage", text=[])),
    ("memory must be true or false", line(memory="no")),
    ("conversation_created_at has no offset from UTC", line(conversation_created_at="2024-05-03")),
    ("content holds NUL", line(content="a\0b")),
    ("content holds a lone surrogate", line(content="\ud83d")),
    *(("user must be text", line(user=user)) for user in (..., 7)),
    ("user is blank", line(user=" ")),
    ("user is longer than 150 characters", line(user="a" * 151)),
    ("user holds a lone surrogate", line(user="\udc00")),
    *(("conversation must be text", line(conversation=name)) for name in (..., True, None, 1.5)),
    ("conversation is blank", line(conversation="")),
    ("conversation is longer than 255 characters", line(conversation="x" * 256)),
    ("conversation holds NUL", line(conversation="\0")),
    ("created_at has no offset from UTC", line(created_at="2024-05-03T10:00:00")),
    *(
        ("created_at must be an ISO 8601 time with an offset", line(created_at=at))
        for at in (
            ..., 1, "then", "2024-02-30T10:00:00Z", "0001-01-01T00:00+01:00",
            "9999-12-31T23:00-02:00",
        )
    ),
    *(
        ("not JSON", raw + b"\n")
        for raw in (b"{'user': 1}", b"[" * 100_000, b'{"n": ' + b"1" * 5_000 + b"}")
    ),
    ("not a JSON object", b"[1]\n"),
    ("not UTF-8", line()[:-3] + b"\xff\xfe}\n"),
    ("longer than 16,000,000 bytes", line(extra="x" * MAX_FILE_LINE_BYTES)),
    # Too long to be an empty line.
    ("longer than 16,000,000 bytes", b" " * (MAX_FILE_LINE_BYTES + 1)),
]  # fmt: skip


@pytest.mark.parametrize(("reason", "raw"), BAD, ids=[reason for reason, _ in BAD])
def test_a_bad_line_is_named_by_number_and_rule_without_its_content(
    reason: str, raw: bytes, alice: User
) -> None:
    with pytest.raises(ImportRefusedError) as refused:
        imported(line(), b"\n", raw, line(content="after"))
    assert str(refused.value) == f"line 3: {reason}"
    assert not StandaloneChat.objects.exists()


def test_the_traceback_of_a_bad_line_does_not_hold_its_text() -> None:
    for _, raw in BAD:
        with pytest.raises(BadLineError) as bad:
            parse(raw)
        assert bad.value.__cause__ is None
        assert bad.value.__suppress_context__ or bad.value.__context__ is None


def test_an_incomplete_last_line_is_bad(alice: User) -> None:
    for cut in (line()[:-9], line(content="é")[:-2], '{"content": "é'.encode()[:-1]):
        with pytest.raises(
            ImportRefusedError, match=r"^line 2: the file ends in the middle of it$"
        ):
            imported(line(), cut)


def test_after_a_bad_line_nothing_is_imported_not_even_users() -> None:
    lines = [*many(500), line(role="system"), *many(500)]
    with pytest.raises(ImportRefusedError, match="line 501"):
        imported(*lines, create_users=True)
    assert not User.objects.exists()
    assert not StandaloneChat.objects.exists()
    assert not stored()


def test_skipped_lines_are_counted_with_the_first_five_reasons(
    alice: User,
) -> None:
    done = imported(
        *[line(role="x")] * 4, line(), *[line(content="")] * 3, line(user="x"), skip_bad=True
    )
    assert (done.messages, done.skipped, done.already) == (1, 8, 0)
    assert done.reasons == [f"line {n}: role must be user or assistant" for n in (1, 2, 3, 4)] + [
        "line 6: content is blank"
    ]


def test_an_unknown_user_is_a_bad_line(alice: User) -> None:
    lines = [line(), line(user="carol"), line(user="dave"), line(user="carol", content="More")]
    with pytest.raises(ImportRefusedError, match=r"^line 2: no user is called 'carol'$"):
        imported(*lines)
    assert not stored()
    done = imported(*lines, skip_bad=True)
    assert (done.messages, done.users, done.skipped) == (1, 1, 3)
    assert done.reasons == ["line 2: no user is called 'carol'", "line 3: no user is called 'dave'"]
