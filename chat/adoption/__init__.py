"""Takes over the chat's tables if an earlier program created them."""
