"""Where Chromium is, for tests and for screenshots."""

import os
import shutil

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# Chromium cannot use its sandbox as root, nor /dev/shm in a small container.
OPTIONS = ("--no-sandbox", "--disable-dev-shm-usage", "--disable-background-networking")
MISSING = "browser tests left out: they need Chromium (apt-get install chromium, or CHROMIUM=path)"


def find() -> str | None:
    """The path that CHROMIUM names, or of an installed Chromium or Chrome; None without one."""
    named = os.environ.get("CHROMIUM")
    return named or next(filter(None, map(shutil.which, NAMES)), None)


def is_left_out() -> bool:
    """Whether browser tests are left out: there is no browser, and this is not CI."""
    return find() is None and not os.environ.get("CI")
