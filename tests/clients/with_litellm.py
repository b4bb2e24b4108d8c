"""Asks each question in a conversation of its own, by LiteLLM: BASE_URL KEY QUESTION..."""

import sys

import litellm  # type: ignore[import-not-found]

_, base_url, key, *questions = sys.argv
for question in questions:
    answer = litellm.completion(
        model="openai/verse",
        api_base=base_url,
        api_key=key,
        messages=[{"role": "user", "content": question}],
    )
    print(answer.choices[0].message.content)
chunks = litellm.completion(
    model="openai/verse",
    api_base=base_url,
    api_key=key,
    messages=[{"role": "user", "content": "Good bye"}],
    stream=True,
)
print("".join(chunk.choices[0].delta.content or "" for chunk in chunks))
