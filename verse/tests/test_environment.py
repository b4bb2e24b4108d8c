"""Each kind of setting: its default, valid values, and the line that refuses others."""

import re
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.support import ROOT
from verse.broker_url import BROKER_URL
from verse.env_file import read_env_file
from verse.environment import Environment, Rate
from verse.secret_file import load_or_create_secret

CANARY = "canary-8b1f"  # a secret that looks like none
ADDRESS = "a URL such as https://api.openai.com/v1"
BASE = (
    "a URL such as https://api.openai.com/v1, without a query"
    " and without /chat/completions at its end"
)
UNKNOWN, VALUE = "only parameters that libpq knows, not {}", "another value of its parameter {}"
DATABASE = "a PostgreSQL URL such as postgresql://user:password@host:5432/name"
SECONDS = "seconds, above 0, at most 86400"
KEY = "printable ASCII characters without spaces"

# reader, its arguments after the name, what is set, what is read
GOOD: list[tuple[str, dict[str, Any], str | None, Any]] = [
    ("text", {"default": "gpt-4o-mini"}, None, "gpt-4o-mini"),
    ("text", {"default": "gpt-4o-mini"}, "", "gpt-4o-mini"),
    ("text", {"default": "gpt-4o-mini"}, "  llama-3  ", "llama-3"),
    ("text", {}, r"$HOME \$5 ${HOME}", r"$HOME \$5 ${HOME}"),
    ("secret", {}, None, ""),
    ("secret", {}, "$ecret", "$ecret"),
    ("secret", {}, " sk-abc!~ ", "sk-abc!~"),
    ("hosts", {"default": "localhost,127.0.0.1"}, None, ["localhost", "127.0.0.1"]),
    (
        "hosts",
        {"default": ""},
        "a.example, .b.example,,*,[::1]",
        ["a.example", ".b.example", "*", "[::1]"],
    ),
    ("origins", {}, None, []),
    ("origins", {}, "https://a.example,http://b:8000", ["https://a.example", "http://b:8000"]),
    ("choice", {"default": "openai", "allowed": ("openai", "local")}, None, "openai"),
    ("choice", {"default": "openai", "allowed": ("openai", "local")}, "LOCAL", "local"),
    ("boolean", {"default": True}, None, True),
    ("boolean", {"default": False}, "Yes", True),
    ("boolean", {"default": True}, "0", False),
    ("integer", {"default": 7}, None, 7),
    ("integer", {"default": 7, "minimum": 0}, "0", 0),
    ("integer", {"default": 7, "maximum": 9}, "9", 9),
    ("seconds", {"default": 25}, None, 25.0),
    ("seconds", {"default": 25}, "0.5", 0.5),
    ("dollars", {"default": None}, None, None),
    ("dollars", {"default": 0.00002}, None, 0.00002),
    ("dollars", {"default": None}, "0", 0.0),
    ("dollars", {"default": None}, "2e-5", 0.00002),
    ("similarity", {}, None, None),
    ("similarity", {}, "-1", -1.0),
    ("limit", {}, None, None),
    ("limit", {}, "200000", 200_000),
    ("rate", {"default": "60/min"}, None, Rate(60, 60)),
    ("rate", {"default": "60/min"}, "OFF", None),
    ("rate", {"default": "60/min"}, "5/hour", Rate(5, 3600)),
    ("url", {"default": "https://api.openai.com/v1"}, None, "https://api.openai.com/v1"),
    ("url", {}, "http://127.0.0.1:8080/v1/", "http://127.0.0.1:8080/v1"),
    ("database", {}, None, None),
]

# reader, its arguments after the name, what is set, what is allowed; the value is shown
BAD: list[tuple[str, dict[str, Any], str, str]] = [
    (
        "hosts",
        {"default": ""},
        "https://chat.example.com",
        "host names without scheme or port, such as chat.example.com",
    ),
    (
        "hosts",
        {"default": ""},
        "a.example b.example",
        "host names without scheme or port, such as chat.example.com",
    ),
    (
        "origins",
        {},
        "chat.example.com",
        "origins with their scheme, such as https://chat.example.com",
    ),
    (
        "origins",
        {},
        "https://a.example/path",
        "origins with their scheme, such as https://chat.example.com",
    ),
    (
        "choice",
        {"default": "openai", "allowed": ("openai", "local", "none")},
        "opnai",
        "openai or local or none",
    ),
    ("boolean", {"default": True}, "maybe", "true or false"),
    ("integer", {"default": 5}, "many", "a whole number from 1 to 1000000000"),
    ("integer", {"default": 5}, "1.5", "a whole number from 1 to 1000000000"),
    ("integer", {"default": 5}, "0", "a whole number from 1 to 1000000000"),
    ("integer", {"default": 5, "maximum": 65535}, "65536", "a whole number from 1 to 65535"),
    ("integer", {"default": 5}, "9" * 50, "a whole number from 1 to 1000000000"),
    ("integer", {"default": 5}, "٣", "a whole number from 1 to 1000000000"),
    ("limit", {"maximum": 36_500}, "0", "a whole number from 1 to 36500"),
    ("limit", {"maximum": 36_500}, "36501", "a whole number from 1 to 36500"),
    ("limit", {"maximum": 36_500}, "a year", "a whole number from 1 to 36500"),
    ("seconds", {"default": 5}, "soon", SECONDS),
    ("seconds", {"default": 5}, "0", SECONDS),
    ("seconds", {"default": 5}, "-3", SECONDS),
    ("seconds", {"default": 5}, "nan", SECONDS),
    ("seconds", {"default": 5}, "inf", SECONDS),
    ("dollars", {"default": None}, "-0.01", "US dollars, 0 or more"),
    ("dollars", {"default": None}, "$20", "US dollars, 0 or more"),
    ("similarity", {}, "1.1", "a cosine similarity from -1 to 1"),
    (
        "rate",
        {"default": "60/min"},
        "60/fortnight",
        "off, or a rate such as 60/min (s, min, hour or day; at most 99999)",
    ),
    (
        "rate",
        {"default": "60/min"},
        "0/min",
        "off, or a rate such as 60/min (s, min, hour or day; at most 99999)",
    ),
    ("url", {}, "api.openai.com/v1", ADDRESS),
    ("url", {}, "ftp://api.openai.com/v1", ADDRESS),
    ("url", {}, "https://", ADDRESS),
    ("url", {}, "https://host:99999/v1", ADDRESS),
    ("url", {}, "http://[::1", ADDRESS),
    ("url", {}, "https://host/v1?api-version=2024-10-21", BASE),
    ("url", {}, "https://host/v1?", BASE),
    ("url", {}, "https://host/v1#models", BASE),
    ("url", {}, "https://host/v1/chat/completions", BASE),
    ("url", {}, "https://host/v1/chat/completions/", BASE),
    ("url", {}, "https://host/v1/embeddings", BASE),
    ("choice", {"default": "a", "allowed": ("a",)}, "two\nlines", "a"),
]

# reader, what is set, what is allowed; the value is not shown
HIDDEN = [
    ("secret", f"{CANARY} with spaces", KEY),
    ("secret", f"{CANARY}\nsecond line", KEY),
    ("secret", f"{CANARY}-schlüssel", KEY),
    ("database", f"mysql://verse:{CANARY}@host/verse", DATABASE),
    ("database", f"host=db password={CANARY}", DATABASE),
    ("database", f"postgresql://verse:{CANARY}@host/", DATABASE),
    ("database", f"postgresql://verse:{CANARY}@host:port/verse", DATABASE),
    ("database", f"postgresql://verse:{CANARY}@host:65536/verse", DATABASE),
    ("database", f"postgresql://verse:{CANARY}@host/verse?sslmode=maybe", VALUE.format("sslmode")),
    (
        "database",
        f"postgresql://verse:{CANARY}@host/verse?sslmod=require",
        UNKNOWN.format("sslmod"),
    ),
    *(
        ("database", f"postgresql://verse@host/verse?{name}={CANARY}", VALUE.format(name))
        for name in (
            "connect_timeout",
            "keepalives_idle",
            "target_session_attrs",
            "gssencmode",
            "channel_binding",
            "ssl_min_protocol_version",
            "load_balance_hosts",
        )
    ),
    ("url", f"https://host/v1?key={CANARY}", BASE),
    ("url", f"ftp://verse:{CANARY}@host/v1", ADDRESS),
    ("url", f"host/v1?api_key={CANARY}", ADDRESS),
    ("broker", f"http://verse:{CANARY}@host:6379/0", BROKER_URL),
    ("broker", f"redis://:{CANARY}@host:65536/0", BROKER_URL),
    ("broker", f"redis:///{CANARY}", BROKER_URL),
    ("similarity", f"sk-{CANARY}", "a cosine similarity from -1 to 1"),
]


def refusal(reader: str, value: str, *, keys: set[str] | None = None, **arguments: Any) -> str:
    """The line that refuses the variable NAME."""
    env = Environment({"NAME": value}, keys or set())
    with pytest.raises(SystemExit) as refused:
        getattr(env, reader)("NAME", **arguments)
    return str(refused.value)


@pytest.mark.parametrize(("reader", "arguments", "value", "expected"), GOOD)
def test_a_valid_value_is_read_and_an_empty_one_is_the_default(
    reader: str, arguments: dict[str, Any], value: str | None, expected: Any
) -> None:
    assert getattr(Environment({"NAME": value}), reader)("NAME", **arguments) == expected


@pytest.mark.parametrize(("reader", "arguments", "value", "allowed"), BAD)
def test_an_invalid_value_is_refused_with_one_line(
    reader: str, arguments: dict[str, Any], value: str, allowed: str
) -> None:
    line = refusal(reader, value, **arguments)
    assert line == f"Verse cannot start: NAME={value!r} cannot be used; allowed: {allowed}"
    assert len(line.splitlines()) == 1


@pytest.mark.parametrize(("reader", "value", "allowed"), HIDDEN)
def test_an_invalid_value_that_may_be_secret_is_not_shown(
    reader: str, value: str, allowed: str
) -> None:
    line = refusal(reader, value)
    assert line == f"Verse cannot start: NAME cannot be used; allowed: {allowed}"


def test_a_secret_in_the_wrong_variable_is_not_shown_there() -> None:
    password = Environment({"DB": f"postgresql://verse:{CANARY}@host/verse", "NAME": f"x{CANARY}x"})
    password.database("DB")
    with pytest.raises(SystemExit, match=r"^Verse cannot start: NAME cannot be used"):
        password.integer("NAME", 5)
    assert CANARY not in refusal("boolean", CANARY, keys={CANARY}, default=True)


def test_a_long_invalid_value_is_shortened() -> None:
    assert len(refusal("integer", "x" * 10_000, default=5)) < 250


def test_a_database_url_becomes_django_settings_with_its_parameters_as_options() -> None:
    url = "postgresql://verse:p%40ss@db.example:6432/chat%20one"
    parameters = "sslmode=verify-full&sslrootcert=/ca.pem"
    assert Environment({"NAME": f"{url}?{parameters}"}).database("NAME") == {
        "ENGINE": "pooled_postgres",
        "NAME": "chat one",
        "USER": "verse",
        "PASSWORD": "p@ss",
        "HOST": "db.example",
        "PORT": "6432",
        "OPTIONS": {"sslmode": "verify-full", "sslrootcert": "/ca.pem"},
    }


def test_a_database_url_may_name_a_socket_or_several_hosts() -> None:
    socket = Environment({"NAME": "postgres:///verse?host=/run/postgresql"}).database("NAME")
    several = Environment({"NAME": "postgresql://a:5432,b:5433/verse"}).database("NAME")
    assert socket
    assert several
    assert (socket["HOST"], socket["NAME"]) == ("/run/postgresql", "verse")
    assert (several["HOST"], several["PORT"]) == ("a,b", "5432,5433")


def test_a_missing_secret_key_is_generated_once_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / ".verse" / "secret_key"
    first = Environment({}).secret_key("SECRET_KEY", path, may_generate=True)
    assert len(first) >= 50
    assert Environment({}).secret_key("SECRET_KEY", path, may_generate=True) == first
    assert path.stat().st_mode & 0o777 == 0o600
    assert (
        Environment({"SECRET_KEY": "mine"}).secret_key("SECRET_KEY", path, may_generate=True)
        == "mine"
    )


def test_a_missing_secret_key_is_refused_if_none_may_be_generated(tmp_path: Path) -> None:
    with pytest.raises(
        SystemExit, match=r"SECRET_KEY cannot be used; allowed: .*it must be set where DEBUG is off"
    ):
        Environment({}).secret_key("SECRET_KEY", tmp_path / "secret_key", may_generate=False)
    assert not list(tmp_path.iterdir())


def test_processes_that_start_together_load_the_same_secret(tmp_path: Path) -> None:
    secrets: list[str] = []
    together = threading.Barrier(8)

    def start() -> None:
        together.wait()
        secrets.append(load_or_create_secret(tmp_path / "kept"))

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(secrets) == 8
    assert len(set(secrets)) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_a_secret_that_cannot_be_stored_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(
        SystemExit,
        match=r"^Verse cannot start: \S+/file/kept, made where it is missing: File exists$",
    ):
        load_or_create_secret(tmp_path / "file" / "kept")


def test_the_env_file_is_read_and_may_be_missing(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("# mine\nPORT=9000\nLLM_MODEL='two words'\nEMPTY=\n")
    assert read_env_file(tmp_path / ".env", {}) == {
        "PORT": "9000",
        "LLM_MODEL": "two words",
        "EMPTY": "",
    }
    assert read_env_file(tmp_path / "none", {}) == {}


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("  export NAME = spaced  ", "spaced"),
        ("NAME=9000 # a comment", "9000"),
        ("NAME=a#b", "a#b"),
        ("NAME='a # b' # a comment", "a # b"),
        ('NAME="a \\"b\\" # c"', 'a "b" # c'),
        ("NAME=$ecret", "$ecret"),
        ("NAME=a=b", "a=b"),
    ],
)
def test_a_line_of_the_env_file_may_have_spaces_and_comments(
    tmp_path: Path, line: str, value: str
) -> None:
    (tmp_path / ".env").write_text(f"# NAME=no\n{line}\n")
    assert read_env_file(tmp_path / ".env", {}) == {"NAME": value}


def test_references_in_the_env_file_are_replaced(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("A=1\nB=${A}-${C}-${D:-4}${E}\n")
    settings = read_env_file(tmp_path / ".env", {"A": "0", "C": "3"})
    assert settings == {"A": "1", "B": "1-3-4"}


def test_an_invalid_line_of_the_env_file_is_logged_without_content(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / ".env").write_text(f"PORT=9000\n{CANARY}\n")
    assert read_env_file(tmp_path / ".env", {}) == {"PORT": "9000"}
    assert "line 2 is ignored" in caplog.text
    assert CANARY not in caplog.text


def test_hosts_and_special_characters_are_read_like_libpq() -> None:
    database = Environment({"NAME": "postgresql://u:a+b?@c:6432,d/x+y"}).database("NAME")
    assert database
    assert (database["HOST"], database["PORT"]) == ("c,d", "6432,")
    assert (database["NAME"], database["PASSWORD"]) == ("x+y", "a+b?")


def test_an_undecodable_env_file_stops_the_start_without_showing_content(
    tmp_path: Path,
) -> None:
    (tmp_path / ".env").write_bytes(b"SECRET_KEY=canary\xff\n")
    with pytest.raises(
        SystemExit, match=r"^Verse cannot start: \S+/.env cannot be read \(UnicodeDecodeError\)$"
    ):
        read_env_file(tmp_path / ".env", {})


def names_in_the_example() -> dict[str, str]:
    """The variables of .env.example, and their defaults."""
    return dict(
        re.findall(r"^#([A-Z][A-Z0-9_]*)=(.*)$", (ROOT / ".env.example").read_text(), re.MULTILINE)
    )


def names_in_the_settings() -> set[str]:
    """The variables that verse/settings.py reads."""
    return set(
        re.findall(r'\benv\.(?!refuse)\w+\(\s*"(\w+)"', (ROOT / "verse/settings.py").read_text())
    )


def test_the_example_names_each_variable_that_settings_read() -> None:
    assert set(names_in_the_example()) == names_in_the_settings()
    assert len(names_in_the_settings()) >= 33


def test_the_example_sets_nothing_and_explains_each_variable() -> None:
    lines = (ROOT / ".env.example").read_text().splitlines()
    assert all(not line or line.startswith("#") for line in lines)
    for number, line in enumerate(lines):
        if re.match(r"#[A-Z]", line):
            assert re.match(r"# \S", lines[number - 1]), f"nothing is said about {line}"


def test_only_settings_and_the_embedded_server_read_the_environment() -> None:
    readers = {
        str(path.relative_to(ROOT))
        for folder in ("verse", "chat", "retrieval", "pooled_postgres", "embedded_postgres")
        for path in (ROOT / folder).rglob("*.py")
        if re.search(r"os\.environ\b(?!\.setdefault)|os\.getenv", path.read_text())
        and "tests" not in path.parts
    }
    # These only set variables: for pg_restore, onnxruntime, OpenTelemetry, prometheus_client.
    readers -= {"chat/backup/scratch.py", "retrieval/embeddings/minilm.py"}
    readers -= {"retrieval/telemetry/tracing.py", "retrieval/telemetry/metrics_folder.py"}
    assert readers == {"verse/settings.py", "verse/asgi.py", "embedded_postgres/ensure_running.py"}
