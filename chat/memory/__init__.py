"""What a user's memory does for the chat: embed messages, recall them, show them."""
