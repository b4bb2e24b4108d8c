"""Why an import adds nothing of a file."""


class ImportRefusedError(Exception):
    """Why nothing of the file was imported, in one line."""


class ImportBusyError(ImportRefusedError):
    """Another import is running in this database."""
