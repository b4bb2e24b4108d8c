"""Django's PostgreSQL backend with a cheap check of pooled connections."""
