"""The endings of answers that failed before the model has ended them."""

import logging

from chat.answers.errors import CompletionError, LLMNotConfigured
from chat.answers.live_answer import LiveAnswer
from chat.answers.llm import llm_address
from chat.answers.save_answer import Ending
from chat.errors import database_unavailable
from chat.models import Status
from retrieval.root_cause import root_cause_name

logger = logging.getLogger(__name__)


def failed(live: LiveAnswer, error: CompletionError) -> Ending:
    """Interrupted if the model said a word, else failed. One line in the log."""
    if not isinstance(error, LLMNotConfigured):
        cause = f" ({root_cause_name(error.__cause__)})" if error.__cause__ else ""
        logger.warning("No answer from %s: %s%s", llm_address(), error, cause)
    return _ending(live, error.code, str(error))


def failed_without_database(live: LiveAnswer, error: Exception) -> Ending:
    """The database may be back by the time the answer is saved. One line in the log."""
    refusal = database_unavailable(error)
    return _ending(live, refusal.default_code, str(refusal.detail))


def _ending(live: LiveAnswer, code: str, detail: str) -> Ending:
    """Before the first word a plain status is the answer, instead of a stream."""
    if not live.may_stream.done():
        live.may_stream.set_result(False)
    status = Status.INTERRUPTED if live.text.strip() else Status.FAILED
    return Ending(status, code, detail)
