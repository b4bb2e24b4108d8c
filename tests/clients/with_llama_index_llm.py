"""Asks each question in a conversation of its own, by LlamaIndex: BASE_URL KEY QUESTION..."""

import sys

from llama_index.llms.openai_like import OpenAILike  # type: ignore[import-not-found]

_, base_url, key, *questions = sys.argv
model = OpenAILike(model="verse", api_base=base_url, api_key=key, is_chat_model=True)
for question in questions:
    print(model.complete(question))
print("".join(chunk.delta or "" for chunk in model.stream_complete("Good bye")))
