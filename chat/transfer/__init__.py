"""Conversations in and out of the database as JSON Lines; what a line is: ``lines``."""
