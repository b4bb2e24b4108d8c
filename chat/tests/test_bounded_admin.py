"""Pages of the admin cost the same for a few rows and for many."""

import re
from functools import partial

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client

from chat import bounded_admin
from chat.tests.admin_support import (
    TABLES,
    add_of_each,
    address,
    queries_of,
)
from chat.tests.plan_support import reads_of

pytestmark = pytest.mark.django_db


def test_a_page_makes_as_many_queries_for_forty_rows_as_for_one(operator: Client) -> None:
    first = add_of_each(0)
    pages = [
        address(table, page)
        for table in (*TABLES, "user")
        for page in ("", "?q=user", f"{first[table]}/change/")
    ]
    pages += [address(table, f"{first[table]}/delete/") for table in (*TABLES[:5], "user")]
    _ = [operator.get(page) for page in pages]  # Django remembers its content types from here on
    for_one = {page: len(queries_of(operator, page)) for page in pages}
    for number in range(1, 40):
        add_of_each(number)
    for table in (*TABLES, "user"):
        assert operator.get(address(table)).content.count(b"/change/") >= 40, (
            "not all rows are on the page"
        )
    for_forty = {page: len(queries_of(operator, page)) for page in pages}
    assert for_forty == for_one
    assert max(for_forty.values()) <= 15, for_forty


@pytest.mark.parametrize(
    "table", ["passage", "standalonechat", "chatmessage", "standalonechatmessage", "user"]
)
def test_a_list_never_counts_a_whole_table_and_loads_no_long_text(
    table: str, operator: Client
) -> None:
    add_of_each(0)
    for page in ("", "?q=user", "?q=1"):
        queries = queries_of(operator, address(table, page))
        counts = [sql for sql in queries if "COUNT(" in sql]
        assert counts or "message" in table
        assert all(f"LIMIT {bounded_admin.MAX_COUNTED_ROWS}" in sql for sql in counts), counts
        selected = [re.sub(r"LEFT\([^)]*\)", "", sql.split(" FROM ")[0]) for sql in queries]
        assert not any('"."content"' in sql or '"."text"' in sql for sql in selected), selected
        assert not any("LIKE '%" in sql or "UPPER(" in sql for sql in queries), queries


def test_a_list_ends_at_the_maximum_of_counted_rows(
    operator: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounded_admin, "MAX_COUNTED_ROWS", 3)
    for number in range(5):
        add_of_each(number)
    assert operator.get(address("passage")).context["cl"].result_count == 3


FILL = """
    INSERT INTO auth_user (username, password, is_superuser, first_name, last_name, email,
        is_staff, is_active, date_joined)
    SELECT 'user' || n, '!', false, '', '', '', false, true, now() FROM generate_series(1, 200) n;
    INSERT INTO passages (user_id, reference, text)
    SELECT (SELECT min(id) FROM auth_user WHERE username LIKE 'user%') + n / 100, 'Ruth 1', ''
    FROM generate_series(0, 19999) n;
    ANALYZE auth_user;
    ANALYZE passages
"""


def test_a_search_reads_only_the_rows_of_its_users(
    operator: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first user's are the oldest: a scan backwards by id would read all others before."""
    monkeypatch.setattr(bounded_admin, "MAX_COUNTED_ROWS", 200)
    with connection.cursor() as cursor:
        cursor.execute(FILL)
    for term in ("user1", "user200", "nobody"):
        url = address("passage", f"?q={term}")
        reads = reads_of(partial(operator.get, url), tables=["passages"])
        assert reads.scans["passages"] == 0, reads
        # A user has a hundred, of which the newest are taken; these are counted, and shown.
        users = User.objects.filter(username__startswith=term)[: bounded_admin.MAX_USERS]
        assert reads.of("passages") <= 300 * len(users) + 6 * 200, reads
