"""Conversations in and out of the database as JSON Lines; what a line is: ``lines``."""

from django.db import Error


def in_one_line(error: Error) -> str:
    """Class and SQLSTATE of a database's refusal. Its own words may quote a row, and so what somebody said."""
    cause = error.__cause__ or error
    state = getattr(cause, "sqlstate", None)
    return (
        f"{type(cause).__name__}, SQLSTATE {state}"
        if state
        else f"{type(cause).__name__}, connection lost"
    )
