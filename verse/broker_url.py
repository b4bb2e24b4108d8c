"""Which addresses of a message broker Celery can use with the packages that are installed."""

from urllib.parse import urlsplit

BROKERS = {"redis", "rediss", "amqp", "amqps"}
BROKER_URL = "a URL such as redis://127.0.0.1:6379/0 (redis, rediss, amqp or amqps)"


def is_broker_url(value: str) -> bool:
    """Whether it names a host by one of BROKERS."""
    try:
        parts = urlsplit(value)
        return parts.scheme in BROKERS and bool(parts.hostname) and parts.port != 0
    except ValueError:  # an invalid port
        return False
