"""Managed database services: who may create the extension there, and how it gets on the server."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Provider:
    """``package``: how to install pgvector. ``creator``: who may run CREATE EXTENSION vector."""

    package: str
    creator: str


# Each service is known by a setting that its servers have. docs/howto/enable-the-extension.md links
# to the vendors' pages, with the date on which they were read.
PROVIDERS = {
    "rds.extensions": Provider(
        "on Amazon RDS choose an engine version that has it", "a member of rds_superuser"
    ),
    "azure.extensions": Provider(
        "on Azure add VECTOR to the server parameter azure.extensions",
        "a member of azure_pg_admin, with VECTOR in azure.extensions,",
    ),
    "cloudsql.iam_authentication": Provider(
        "on Cloud SQL choose a maintenance version that has it", "a member of cloudsqlsuperuser"
    ),
    "extwlist.extensions": Provider(
        "on Heroku choose a plan and a PostgreSQL version that have it",
        "the database's default credential (heroku pg:psql)",
    ),
    "supautils.privileged_extensions": Provider(
        "on Supabase ask its support, as every project has it",
        "the role postgres (the SQL editor)",
    ),
}


def provider_of(setting: str | None, *, server: str) -> Provider:
    """The service known by this setting; if None, a server of one's own of this major version."""
    own = Provider(f"the package postgresql-{server}-pgvector on Debian and Ubuntu", "a superuser")
    return PROVIDERS.get(setting or "", own)
