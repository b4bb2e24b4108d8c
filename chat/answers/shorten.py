"""Asks the model, with a shorter prompt each time that its server refuses one as too long."""

from collections.abc import Awaitable, Callable

from chat.answers import turns
from chat.answers.errors import PromptTooLong
from chat.answers.live_answer import LiveAnswer
from chat.answers.llm import Listener, complete
from chat.answers.prompt import Prompt
from retrieval import connection_share


async def complete_shortened(
    live: LiveAnswer, prompt: Prompt, *, before_text: Callable[[], Awaitable[None]]
) -> str | None:
    """At most four requests; what the last prompt holds is stored in the answer before.

    Its size is then the limit of the conversation's next prompts. Returns and raises as
    ``complete``.
    """
    listener = Listener(live.add, live.add_reasoning, before_text)
    while True:
        try:
            return await complete(prompt.parts, listener)
        except PromptTooLong:
            shorter = prompt.shorter()
            if shorter is None:
                raise
        prompt = shorter
        answer = live.turn.answer
        context = prompt.stored_context()
        await connection_share.run(answer.user_id, turns.save_context, answer, context)
        live.truncated, live.memories = prompt.truncated, prompt.memories
