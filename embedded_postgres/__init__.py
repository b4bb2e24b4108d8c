"""PostgreSQL out of a package, started by whoever needs it first, stopped when nobody does."""
