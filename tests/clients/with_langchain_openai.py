"""Asks each question in a conversation of its own, by LangChain: BASE_URL KEY QUESTION..."""

import sys

from langchain_openai import ChatOpenAI  # type: ignore[import-not-found]

_, base_url, key, *questions = sys.argv
model = ChatOpenAI(model="verse", base_url=base_url, api_key=key)
for question in questions:
    print(model.invoke(question).content)
print("".join(chunk.content for chunk in model.stream("Good bye")))
