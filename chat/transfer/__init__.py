"""Imports and exports conversations as JSON Lines; ``lines`` says what a line is."""
