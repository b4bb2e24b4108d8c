"""People, conversations, messages and the answers to them."""
