"""Admin pages that cost the same for a thousand rows and for a hundred million.

Nothing searches, filters or sorts by content or time: ``content ILIKE '%…%'``, ``date_hierarchy``
and a filter by status have no index, and would read a whole message table. A row is looked up by
its id or by its user.
"""

from typing import TYPE_CHECKING, Any, ClassVar

from django.contrib import admin
from django.contrib.auth.models import User
from django.core.paginator import Paginator
from django.db.models import Model, Q, QuerySet
from django.http import HttpRequest
from django.utils.functional import cached_property
from psycopg import sql

from chat.auth.usernames import normalize
from retrieval.queries import rows

if TYPE_CHECKING:  # Django's own classes take no type at run time
    ModelAdmin = admin.ModelAdmin[Any]
    AnyPaginator = Paginator[Any]
else:
    ModelAdmin, AnyPaginator = admin.ModelAdmin, Paginator

MAX_COUNTED_ROWS = 10_000  # a hundred pages of a hundred; counted in milliseconds
# Locks: none.
NEWEST_OF_USERS = sql.SQL("""
    SELECT r.id FROM unnest(%(users)s::bigint[]) u (id) CROSS JOIN LATERAL (
        SELECT {key} AS id FROM {table} WHERE user_id = u.id ORDER BY {key} DESC LIMIT %(share)s
    ) r
""")
MAX_ID_DIGITS = 18  # no id is as great, and twice such a number is still a bigint
MAX_USERS = 100  # users whose names match a search; their ids stand in the query


class BoundedPaginator(AnyPaginator):
    """Counts at most MAX_COUNTED_ROWS rows. Older rows are reached by a search."""

    @cached_property
    def count(self) -> int:
        queryset: Any = self.object_list
        return int(queryset.order_by()[:MAX_COUNTED_ROWS].count())

    @property
    def stopped(self) -> bool:
        """Whether there may be more than were counted."""
        return self.count >= MAX_COUNTED_ROWS


def parse_id(term: str) -> int | None:
    """The number that the term is; None if it is not one, or one that no id has."""
    return int(term) if term.isdecimal() and len(term) <= MAX_ID_DIGITS else None


def with_id(term: str) -> Q:
    """The row with this id; no row if the term is not a number."""
    pk = parse_id(term)
    return Q(pk__in=[] if pk is None else [pk])


def user_ids_starting_with(term: str) -> list[int]:
    """Ids of the first MAX_USERS usernames that start with ``term``. One query, by an index."""
    users = User.objects.filter(username__startswith=normalize(term)).order_by("username")
    return list(users.values_list("pk", flat=True)[:MAX_USERS])


def newest_of_users(model: type[Model], users: list[int]) -> list[int]:
    """The newest rows of each of these users, at most MAX_COUNTED_ROWS in all. One statement.

    Not ``user_id IN (…) ORDER BY id``: for that the planner may read the whole table backwards.
    """
    key, table = model._meta.pk.column, model._meta.db_table
    statement = NEWEST_OF_USERS.format(key=sql.Identifier(str(key)), table=sql.Identifier(table))
    share = MAX_COUNTED_ROWS // max(len(users), 1)
    return [pk for (pk,) in rows(statement, {"users": users, "share": share})]


class BoundedAdmin(ModelAdmin):
    """Searches by id and username only; ``allowed`` names what may be done besides viewing."""

    paginator = BoundedPaginator
    show_full_result_count = False
    ordering: ClassVar[Any] = ("-pk",)
    sortable_by: ClassVar[Any] = ("id",)
    search_fields: ClassVar[Any] = ("pk", "user__username")
    search_help_text = "An id, or the beginning of a username"
    list_select_related: ClassVar[Any] = ("user",)
    raw_id_fields: ClassVar[Any] = ("user",)
    actions: Any = None  # rows are deleted one at a time, by the rules of the service
    show_facets = admin.ShowFacets.NEVER  # they would count every row of each filter
    filter_parameters: ClassVar[tuple[str, ...]] = ()
    allowed: ClassVar[
        tuple[str, ...]
    ] = ()  # of add, change, delete; Django's permissions also apply

    def lookup_allowed(self, lookup: str, value: Any, request: HttpRequest) -> bool:
        """Only the filters of the list: ``?text__contains=`` would read a table, and tell of it."""
        return lookup in self.filter_parameters

    def has_add_permission(self, request: HttpRequest) -> bool:
        return "add" in self.allowed and super().has_add_permission(request)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return "change" in self.allowed and super().has_change_permission(request, obj)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return "delete" in self.allowed and super().has_delete_permission(request, obj)

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        if search_term:
            of_users = newest_of_users(self.model, user_ids_starting_with(search_term))
            queryset = queryset.filter(with_id(search_term) | Q(pk__in=of_users))
        return queryset, False


class CascadingAdmin:
    """Deletes a row with its ``cascade``, without listing each of a million related rows first."""

    cascade: ClassVar[tuple[type[Model], ...]]

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        """Names the kinds of related rows; refuses if the user may not delete one of them."""
        user: Any = request.user
        names = {model: str(model._meta.verbose_name_plural) for model in self.cascade}
        refused = {
            name
            for model, name in names.items()
            if not user.has_perm(f"chat.delete_{model._meta.model_name}")
        }
        return [str(obj) for obj in objs], dict.fromkeys(names.values(), "all of them"), refused, []
