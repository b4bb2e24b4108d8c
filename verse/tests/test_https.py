"""A site with https: Django's own check of a deployment, and what answers ask of browsers."""

import subprocess
import sys
from secrets import token_urlsafe

import pytest
from django.test import Client, override_settings

from tests.support import PATIENCE_S, ROOT, clean_environment


def test_the_check_of_a_deployment_finds_nothing() -> None:
    environment = clean_environment(
        DATABASE_URL="postgresql://verse@127.0.0.1:1/verse",
        SECRET_KEY=token_urlsafe(50),
        ALLOWED_HOSTS="chat.example.com",
        CSRF_TRUSTED_ORIGINS="https://chat.example.com",
        HSTS_SECONDS="31536000",
    )
    done = subprocess.run(
        [sys.executable, "manage.py", "check", "--deploy", "--fail-level", "WARNING"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "no issues" in done.stdout


@pytest.mark.parametrize("is_https", [True, False])
def test_answers_over_https_ask_browsers_to_use_https(is_https: bool) -> None:
    with override_settings(SECURE_HSTS_SECONDS=3600):
        answer = Client().get("/accounts/login/", secure=is_https)
    assert answer.headers.get("Strict-Transport-Security") == ("max-age=3600" if is_https else None)
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Referrer-Policy"] == "same-origin"
