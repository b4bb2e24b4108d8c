"""Lists by cursor: each row comes once, whatever the times of the rows and whatever is added.

A cursor names a row by its time and its id, which no other row shares. DRF's own cursor has the
time alone, and counts rows of equal times by an offset of at most 1,000.
"""

from base64 import b64decode, b64encode
from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import Any, NamedTuple, Self, cast
from urllib.parse import parse_qs, urlencode

from rest_framework.exceptions import NotFound
from rest_framework.generics import GenericAPIView
from rest_framework.pagination import CursorPagination
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.utils.urls import replace_query_param

from chat.row_lists import RowList, is_storable

MAX_ID = 2**63 - 1  # bigint
# A cursor's fields: time, id, direction. Their names are DRF's, which also reads the first.
FIELDS = ("p", "i", "r")
NEWEST = "newest"  # the parameter of a list of messages
ReadRows = Callable[..., list[Any]]  # RowList.read, of one owner


class Border(NamedTuple):
    """Where a page begins or ends: next to the row with this time and id."""

    at: datetime
    pk: int
    is_end: bool = False  # of the page that the cursor asks for; else its begin

    @classmethod
    def parse(cls, cursor: str) -> Self:
        """Raises ValueError."""
        fields = parse_qs(b64decode(cursor.encode("ascii"), validate=True).decode("ascii"))
        at, pk, is_end = (fields.get(name, [""])[0] for name in FIELDS)
        border = cls(datetime.fromisoformat(at), int(pk), is_end == "1")
        if not is_storable(border.at) or not 0 <= border.pk <= MAX_ID:
            raise ValueError(cursor)
        return border

    def __str__(self) -> str:
        fields = zip(FIELDS, (self.at.isoformat(), self.pk, int(self.is_end)), strict=True)
        return b64encode(urlencode(list(fields)).encode()).decode()


class Pages(CursorPagination):
    """Newest first; ``?page_size=`` up to 100."""

    page_size = 50
    max_page_size = 100
    page_size_query_param = "page_size"
    is_newest_first = True
    next_border: Border | None = None
    previous_border: Border | None = None

    def paginate_queryset(  # type: ignore[override] # DRF's reads a queryset
        self, read: ReadRows, request: Request, view: Any = None
    ) -> list[Any]:
        """One call of ``read``. Raises NotFound: the cursor cannot be used."""
        self.url = request.build_absolute_uri()
        size = cast("int", self.get_page_size(request))
        border = self._border(request)
        is_backward = self._is_from_end(request) if border is None else border.is_end
        rows = read(
            border and (border.at, border.pk),
            ascending=self.is_newest_first == is_backward,
            limit=size + 1,
        )
        page = rows[:size][::-1] if is_backward else rows[:size]
        has_more = len(rows) > size
        has_border = border is not None
        has_next, has_previous = (has_border, has_more) if is_backward else (has_more, has_border)
        if has_next:
            self.next_border = self._beside(page, border, is_end=False)
        if has_previous:
            self.previous_border = self._beside(page, border, is_end=True)
        return page

    def get_next_link(self) -> str | None:
        return self._link(self.next_border)

    def get_previous_link(self) -> str | None:
        return self._link(self.previous_border)

    def _border(self, request: Request) -> Border | None:
        cursor = request.query_params.get(self.cursor_query_param)
        try:
            return None if cursor is None else Border.parse(cursor)
        except ValueError:
            raise NotFound(self.invalid_cursor_message) from None

    def _is_from_end(self, request: Request) -> bool:
        """Whether the first page that is asked for is the last of the list."""
        return False

    def _beside(self, page: list[Any], border: Border | None, *, is_end: bool) -> Border:
        """The border of the page before (``is_end``) or after this one."""
        if page:
            row = page[0] if is_end else page[-1]
            return Border(row.created_at, row.pk, is_end)
        # Its rows were deleted: the other page begins at the row that the cursor names.
        at, pk, _ = cast("Border", border)
        return Border(at, pk - 1 if self.is_newest_first == is_end else pk + 1, is_end)

    def _link(self, border: Border | None) -> str | None:
        if border is None:
            return None
        return replace_query_param(self.url, self.cursor_query_param, str(border))


class PagesMixin:
    """For DRF's views of lists: a page of the user's rows is read by ``get_rows``.

    ``may_read_replica``: the list decides no rights, and only writes of its user change it.
    """

    may_read_replica = False

    def get_rows(self) -> RowList[Any]:
        raise NotImplementedError

    def list(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        view, user_id = cast("GenericAPIView[Any]", self), cast("int", request.user.pk)
        replica_for = user_id if self.may_read_replica else None
        read = partial(self.get_rows().read, user_id, replica_for=replica_for)
        page = view.paginate_queryset(cast("Any", read))
        return view.get_paginated_response(view.get_serializer(page, many=True).data)


class MessagePages(Pages):
    """Oldest first. ``?newest=1`` begins with the last page; ``previous`` leads back from it."""

    is_newest_first = False

    def _is_from_end(self, request: Request) -> bool:
        return request.query_params.get(NEWEST) == "1"

    def get_schema_operation_parameters(self, view: Any) -> list[dict[str, Any]]:
        newest = {
            "name": NEWEST,
            "required": False,
            "in": "query",
            "description": "1: the last page instead of the first.",
            "schema": {"type": "integer", "enum": [1]},
        }
        return [*super().get_schema_operation_parameters(view), newest]
