"""Deletes conversations that are older than RETENTION_DAYS, but not those that users keep."""
