"""The daily limits of tokens: DAILY_TOKENS_PER_USER and DAILY_TOKENS.

A turn that begins below a limit runs to its end, so the turns that run can exceed it.
"""

import math

from django.conf import settings

from chat.errors import DailyLimit
from retrieval import token_usage
from retrieval.token_usage import UsedToday


def check_tokens(user_id: int) -> None:
    """Raises DailyLimit at or over a limit. One statement, none where no limit is set."""
    used = _over_limit(user_id)
    if used:
        raise DailyLimit(retry_after_s=max(math.ceil(used.seconds_left), 1))


def is_over_limit(user_id: int) -> bool:
    """Whether ``check_tokens`` would raise."""
    return _over_limit(user_id) is not None


def _over_limit(user_id: int) -> UsedToday | None:
    by_user, by_all = settings.DAILY_TOKENS_PER_USER, settings.DAILY_TOKENS
    if by_user is None and by_all is None:
        return None
    used = token_usage.used_today(user_id)
    if used is None:
        return None
    is_over = (by_user is not None and used.by_user >= by_user) or (
        by_all is not None and used.by_all >= by_all
    )
    return used if is_over else None
