"""Clients of OpenAI's API in environments of their own: test_clients.py runs their scripts."""
