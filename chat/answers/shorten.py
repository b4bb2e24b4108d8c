"""Asks the model, with a shorter prompt each time that its server refuses one as too long."""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from chat.answers.answer_reader import AnswerCallbacks
from chat.answers.errors import PromptTooLong
from chat.answers.live_answer import LiveAnswer
from chat.answers.llm import complete
from chat.answers.prepare import AnyPrompt
from chat.answers.save_answer import save_context
from retrieval import connection_share


async def complete_shortened(
    live: LiveAnswer,
    prompt: AnyPrompt,
    parameters: dict[str, Any],
    *,
    before_text: Callable[[], Awaitable[None]],
    after_word: Callable[[list[Any]], Awaitable[None]] | None = None,
) -> str | None:
    """At most four requests; what the last prompt holds is stored in the answer before.

    Its size is then the limit of the conversation's next prompts. ``after_word`` gets what is to
    be stored of the prompt. Returns the reason if the server cut the answer; raises as
    ``complete``.
    """
    while True:
        callbacks = AnswerCallbacks(live.add, live.add_reasoning, live.add_tool_calls)
        callbacks.before_text = partial(_accepted, live, prompt, before_text)
        if after_word:
            callbacks.after_word = partial(after_word, prompt.stored_context())
        try:
            live.completion = await complete(prompt.parts, callbacks, parameters=parameters)
            return live.completion.cut_reason
        except PromptTooLong:
            shorter = prompt.shorter()
            if shorter is None:
                raise
        prompt = shorter
        answer = live.turn.answer
        context = prompt.stored_context()
        if answer.pk:
            await connection_share.run(answer.user_id, save_context, answer, context)
        live.truncated, live.memories = prompt.truncated, prompt.memories


async def _accepted(
    live: LiveAnswer, prompt: AnyPrompt, before_text: Callable[[], Awaitable[None]]
) -> None:
    """The model's server begins to answer this prompt: its tokens count."""
    live.count_prompt = lambda: prompt.tokens
    await before_text()
