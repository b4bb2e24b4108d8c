"""The project: settings, addresses, start and stop of the server, its embedded database."""
