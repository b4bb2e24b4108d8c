"""The API that clients of OpenAI's speak: /v1. docs/openai-api.md"""
