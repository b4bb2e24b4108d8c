"""A storm: users talk to real servers while everything around them fails. See __main__.py."""
