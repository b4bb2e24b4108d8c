"""API tokens, and the login that creates them."""
