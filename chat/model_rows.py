"""Rows of hand-written statements as instances of models.

For reads that each request or turn makes: to compose a queryset takes four times as long as the
read itself.
"""

from collections.abc import Callable, Collection, Sequence
from typing import Any, Generic, TypeVar

from django.db import DEFAULT_DB_ALIAS, connection
from django.db.models import Model
from psycopg import sql

M = TypeVar("M", bound=Model)


class ModelRow(Generic[M]):
    """A model's columns in a statement, of the table ``alias``, and the instance of such a row.

    The instance loads a field of ``without`` when it is read.
    """

    def __init__(self, model: type[M], *, alias: str, without: Collection[str] = ()) -> None:
        fields = [field for field in model._meta.concrete_fields if field.attname not in without]
        self._model = model
        self._names = [field.attname for field in fields]
        self._from_db: dict[int, Callable[..., Any]] = {  # by place; of JSON
            place: field.from_db_value
            for place, field in enumerate(fields)
            if hasattr(field, "from_db_value")
        }
        self.columns = sql.SQL(", ").join(
            sql.Identifier(alias, str(field.column)) for field in fields
        )

    def __len__(self) -> int:
        """How many columns."""
        return len(self._names)

    def instance(self, values: Sequence[Any]) -> M:
        """The instance of a row with these values, in the order of ``columns``."""
        if self._from_db:
            values = list(values)
            for place, from_db in self._from_db.items():
                values[place] = from_db(values[place], None, connection)
        return self._model.from_db(DEFAULT_DB_ALIAS, self._names, values)
