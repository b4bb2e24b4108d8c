"""The filters next to the lists of messages. They only read the address: find.py applies them."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any, ClassVar

from django.contrib.admin import ListFilter, SimpleListFilter
from django.contrib.admin.options import IncorrectLookupParameters
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone
from django.utils.dateparse import parse_date, parse_datetime

from chat.message_lists import states
from chat.models import Role, Status
from chat.row_lists import is_storable
from retrieval.models import EmbeddingModel

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
PERIODS = {
    "Last hour": HOUR,
    "Last 24 hours": DAY,
    "Last 7 days": 7 * DAY,
    "Last 30 days": 30 * DAY,
}


class ChoiceFilter(SimpleListFilter):
    """One of a few values, or all."""

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset

    def chosen(self) -> str | None:
        """Raises IncorrectLookupParameters for a value that is not among the choices."""
        value = self.value()
        if value is not None and value not in {str(choice) for choice, _ in self.lookup_choices}:
            raise IncorrectLookupParameters(value)
        return value


class RoleFilter(ChoiceFilter):
    title, parameter_name = "role", "role"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return list(Role.choices)


class StatusFilter(ChoiceFilter):
    title, parameter_name = "status", "status"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return list(Status.choices)


class StateFilter(ChoiceFilter):
    title, parameter_name = "embedding", "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(state, state) for state in states.STATES]


class ModelFilter(ChoiceFilter):
    title, parameter_name = "model", "model"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        if not states.has_memory():
            return []
        models = EmbeddingModel.objects.order_by("name").values_list("pk", "name")
        return [(str(pk), name) for pk, name in models]


class TimeFilter(ListFilter):
    """From a time, until a time, or both; in the server's time zone."""

    title = "time"
    template = "admin/time_filter.html"
    parameters: ClassVar[tuple[str, str]] = ("since", "until")

    def __init__(
        self, request: HttpRequest, params: dict[str, Any], model: Any, model_admin: Any
    ) -> None:
        super().__init__(request, params, model, model_admin)
        for name in self.parameters:
            if name in params:
                self.used_parameters[name] = params.pop(name)[-1]

    def has_output(self) -> bool:
        return True

    def expected_parameters(self) -> list[str | None]:
        return list(self.parameters)

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset

    def chosen(self) -> dict[str, datetime]:
        """The times that are set. Raises IncorrectLookupParameters for what is no time."""
        times = {name: as_time(str(text)) for name, text in self.used_parameters.items() if text}
        if None in times.values():
            raise IncorrectLookupParameters("no time")
        return {name: time for name, time in times.items() if time}

    def choices(self, changelist: Any) -> Iterator[dict[str, Any]]:
        """Links to any time and to the latest periods; the template adds a form."""
        self.others = {
            name: value for name, value in changelist.params.items() if name not in self.parameters
        }
        anytime = changelist.get_query_string(remove=self.parameters)
        yield {"selected": not self.used_parameters, "query_string": anytime, "display": "Any time"}
        for display, period in PERIODS.items():
            since = timezone.localtime(timezone.now() - period).strftime("%Y-%m-%dT%H:%M")
            link = changelist.get_query_string({"since": since}, remove=["until"])
            yield {"selected": False, "query_string": link, "display": display}


def as_time(text: str) -> datetime | None:
    """``2026-05-03``, ``2026-05-03T10:00``, or with a zone; None for anything else."""
    try:
        time = parse_datetime(text)
        if time is None and (day := parse_date(text)):
            time = datetime.combine(day, datetime.min.time())
    except ValueError:
        return None
    if time and timezone.is_naive(time):
        time = timezone.make_aware(time)
    return time if time and is_storable(time) else None
