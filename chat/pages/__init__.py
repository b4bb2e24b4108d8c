"""The pages for people: the chat at ``/``, their memory, signing in. Everything goes by the API."""
