"""The admin's list of messages: Django's own, with what ``find`` gives in place of a queryset."""

from typing import Any

from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.views.main import PAGE_VAR, ChangeList
from django.core.paginator import InvalidPage, Paginator
from django.db.models import QuerySet
from django.http import HttpRequest

from chat.bounded_admin import parse_id, user_ids_starting_with
from chat.message_lists import states
from chat.message_lists.filters import ChoiceFilter, ModelFilter, TimeFilter
from chat.message_lists.find import Position, Query, Selection, find

BEFORE = "before"


class MessageChangeList(ChangeList):
    """``selection``: the ids of all pages; the rows of one page are read by their ids."""

    model: Any
    selection: Selection

    def get_queryset(self, request: HttpRequest, exclude_parameters: Any = None) -> QuerySet[Any]:
        """The selected messages, at most MAX_LOOKED_AT; an action takes all of them."""
        if not hasattr(self, "selection"):
            self.params.pop(BEFORE, None)
            self.before = (self.filter_params.pop(BEFORE, None) or [""])[-1]
            self.selection = find(self.model, self._query(request))
            self.clear_all_filters_qs = self.get_query_string(remove=self.get_filters_params())
        return self._rows(self.selection.ids)

    def _rows(self, ids: list[int]) -> QuerySet[Any]:
        return self.root_queryset.filter(pk__in=ids).select_related("user")

    def _query(self, request: HttpRequest) -> Query:
        """What the address asks for. Raises IncorrectLookupParameters."""
        self.filter_specs, self.has_filters, others, _, self.has_active_filters = self.get_filters(
            request
        )
        if others:
            raise IncorrectLookupParameters(*others)
        filters: dict[str, Any] = {}
        for spec in self.filter_specs:
            if isinstance(spec, ModelFilter):
                filters["model"] = int(spec.chosen() or 0) or None
            elif isinstance(spec, ChoiceFilter):
                filters[str(spec.parameter_name)] = spec.chosen()
            elif isinstance(spec, TimeFilter):
                filters |= spec.chosen()
        return Query(**filters, **self._searched(), before=self._position())

    def _searched(self) -> dict[str, Any]:
        """An id, or the beginning of a username. One query."""
        if not self.query:
            return {}
        return {"users": user_ids_starting_with(self.query), "pk": parse_id(self.query)}

    def _position(self) -> Position | None:
        try:
            return Position.parse(self.before) if self.before else None
        except ValueError as error:
            raise IncorrectLookupParameters(self.before) from error

    def get_query_string(self, new_params: Any = None, remove: Any = None) -> str:
        """Links to other pages of this list go on from ``before``, other filters at the newest."""
        if new_params and PAGE_VAR in new_params and self.before:
            new_params = {BEFORE: self.before, **new_params}
        return str(super().get_query_string(new_params, remove))

    def get_results(self, request: HttpRequest) -> None:
        """Read the rows of the page, and the states of their embeddings. Two statements."""
        self.paginator = Paginator(self.selection.ids, self.list_per_page)
        self.result_count = len(self.selection.ids)
        self.multi_page = self.result_count > self.list_per_page
        self.can_show_all = self.result_count <= self.list_max_show_all
        ids = self.selection.ids if self.show_all and self.can_show_all else self._page_ids()
        by_id = {message.pk: message for message in self._rows(ids)}
        self.result_list = [by_id[pk] for pk in ids if pk in by_id]
        states.add_states(self.model.memory_table, self.result_list)
        self.show_full_result_count, self.full_result_count = False, None
        self.show_admin_actions = True

    def _page_ids(self) -> list[int]:
        try:
            return list(self.paginator.page(self.page_num).object_list)
        except InvalidPage as error:
            raise IncorrectLookupParameters from error

    @property
    def older_query_string(self) -> str | None:
        """A link to what was not looked at yet; None if there is nothing."""
        older = self.selection.older
        return self.get_query_string({BEFORE: str(older)}) if older else None
