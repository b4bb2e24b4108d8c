"""Django's PostgreSQL backend: a cheap check of pooled connections, and times of ``infinity``."""
