"""Stops a running answer, from any process.

1. ``stop`` sets a flag in the answer's row of running_answers and waits.
2. The process that generates the answer reads its flags four times a second
   (``heartbeat.read_flags``), cancels the answer (``cancel_stopped``) and saves it.
3. If nothing has ended the answer in time, because its process died, ``stop`` ends it.
"""

import time
from collections.abc import Iterable, Mapping

from chat.answers import turns
from chat.answers.live_answer import LiveAnswer
from chat.answers.save_answer import Ending, finish
from chat.models import Conversation, Message, RunningAnswer, Status
from retrieval import steps

STOP_WAIT_S = 0.8  # docs/promises.md: a stop ends the answer within 1 s, even of a dead process
STOP_POLL_S = 0.05


def stop(conversation: Conversation, answer: Message) -> None:
    """End the answer if it is running. Waits up to STOP_WAIT_S seconds."""
    RunningAnswer.objects.filter(message_id=answer.pk, **{conversation.kind: conversation}).update(
        stop_asked=True
    )
    deadline = time.monotonic() + STOP_WAIT_S
    while _is_streaming(conversation, answer) and time.monotonic() < deadline:
        with steps.waiting():
            time.sleep(STOP_POLL_S)
    row = turns.running_answer_of(conversation)
    if row and row.message_id == answer.pk:
        finish(answer, row.text, Ending(Status.INTERRUPTED), running_id=row.pk)


def cancel_stopped(
    answers: Mapping[int, LiveAnswer], ids: Iterable[int], stop_flags: Mapping[int, bool]
) -> None:
    """Cancel the answers whose flag is set or missing. All keys: running_answers.id.

    A missing flag says that the row was deleted: the answer was ended elsewhere, or with its
    conversation. ``finish`` then does not save the ending that is set here. On the event
    loop; meanwhile a step may remove answers that have ended from ``answers``.
    """
    for pk in ids:
        answer = answers.get(pk)
        if answer and stop_flags.get(pk, True):
            answer.cancel(Ending(Status.INTERRUPTED))


def _is_streaming(conversation: Conversation, answer: Message) -> bool:
    return bool(conversation.messages.filter(pk=answer.pk, status=Status.STREAMING).exists())
