"""Imports and exports conversations as JSON Lines; ``json_lines`` says what a line is."""
