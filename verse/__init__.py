"""The project: settings, URLs, server start and stop, health probes, logs, database roles."""
