"""gunicorn's logger, which builds a request's access line only if a handler receives it.

By default none does. `gunicorn --access-logfile -` adds one.
"""

from gunicorn import glogging


class Logger(glogging.Logger):  # type: ignore[misc] # gunicorn has no types
    """``logger_class`` in gunicorn.conf.py.

    gunicorn's own class builds the line, 0.5 ms, whenever ``logconfig_dict`` is set.
    """

    @property
    def access_log_enabled(self) -> bool:
        """gunicorn asks before each request."""
        return bool(super().access_log_enabled and self.access_log.hasHandlers())
