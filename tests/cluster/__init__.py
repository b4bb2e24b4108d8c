"""Two servers, two workers, PgBouncer, a primary and a replica behind HAProxy: ``make cluster``."""
