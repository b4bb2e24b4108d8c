"""What may be logged of a database error: its class and its SQLSTATE.

Its message may not: it can quote a row, and so what a user wrote.
"""


def error_name(error: BaseException) -> str:
    """The class of the driver's error that Django wraps (``UndefinedTable``), else the error's."""
    return type(error.__cause__ or error).__name__


def sqlstate(error: BaseException) -> str | None:
    """PostgreSQL's five-character code of the error or of its cause; None if there is none."""
    for candidate in (error, error.__cause__):
        state = getattr(candidate, "sqlstate", None)
        if state:
            return str(state)
    return None


def describe_db_error(error: BaseException) -> str:
    """``UniqueViolation, SQLSTATE 23505``."""
    state = sqlstate(error)
    return f"{error_name(error)}, {f'SQLSTATE {state}' if state else 'connection lost'}"
