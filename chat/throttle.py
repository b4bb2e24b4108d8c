"""Count what happens often in PostgreSQL, so that a limit is one for all processes."""

from django.db import connection

from verse.environment import Rate
