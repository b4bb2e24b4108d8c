"""Password guessing is slowed, by account and by address."""

import hashlib

from rest_framework.request import Request

from chat.errors import Throttled
from chat.rate_limit import count_hit

# A person mistypes a few times; ten tries a minute would need years for a weak password of four random words.
TRIES_PER_ACCOUNT = 10
TRIES_PER_ADDRESS = 60  # a school or an office shares one
WINDOW_S = 60


def check_login_rate(request: Request, username: str) -> None:
    """Count one try. Raises Throttled; the right password is then refused like a wrong one."""
    account = hashlib.sha256(username.lower().encode()).hexdigest()
    for name, limit in (
        (f"login account {account}", TRIES_PER_ACCOUNT),
        (f"login address {request.META.get('REMOTE_ADDR', '')}", TRIES_PER_ADDRESS),
    ):
        wait_s = count_hit(name, limit=limit, seconds=WINDOW_S)
        if wait_s is not None:
            raise Throttled("Too many tries; wait a minute.", retry_after_s=wait_s)
