"""Why a call failed: the first cause of its error."""


def root_cause_name(error: BaseException) -> str:
    """The class of the error's first cause: ConnectionRefusedError, not what wraps it."""
    while error.__cause__ is not None and not isinstance(error, TimeoutError):
        error = error.__cause__  # that of a TimeoutError is the cancellation of the task
    return type(error).__name__
