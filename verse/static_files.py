"""Serves the static files of the admin and of the API's page, without a Django request."""

from typing import cast

from django.conf import settings
from django.contrib.staticfiles.finders import AppDirectoriesFinder
from servestatic import ServeStaticASGI

from verse.asgi_messages import Application

MAX_AGE_S = 60  # of a file in a browser's cache; files keep their names when they change


def serve_static(application: Application) -> Application:
    """Wrap an application. Other paths, and files that do not exist, are the application's.

    Reads all files' names now, with DEBUG at each request.
    """
    static = ServeStaticASGI(
        application, autorefresh=settings.DEBUG, max_age=0 if settings.DEBUG else MAX_AGE_S
    )
    for folder in folders():
        static.add_files(folder, prefix=settings.STATIC_URL)
    return cast("Application", static)


def folders() -> list[str]:
    """STATIC_ROOT if ``collectstatic`` has filled it, else the folders of the packages.

    Of two files with the same path, the one in the later folder is served.
    """
    if settings.STATIC_ROOT.is_dir():
        return [str(settings.STATIC_ROOT)]
    storages = AppDirectoriesFinder().storages
    return [str(storage.location) for storage in reversed(storages.values())]
