"""A PostgreSQL server from a Python package: started by its first user, stopped after its last."""
