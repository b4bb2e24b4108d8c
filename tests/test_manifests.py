"""compose.yaml and the Kubernetes manifests: valid, consistent with the settings, safe to stop."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from django.core.management import get_commands

from tests.kubernetes import FOLDER, containers_of, manifests, objects, pods
from tests.support import ROOT

BIN = Path(sys.executable).parent
DEPLOY = ROOT / "deploy"
OLDEST = "1.31.0"  # the first Kubernetes with a stable podFailurePolicy
NEEDED = {
    "DATABASE_URL", "SECRET_KEY", "LLM_API_KEY", "OPENAI_API_KEY",
    "ALLOWED_HOSTS", "CSRF_TRUSTED_ORIGINS", "WEB_CONCURRENCY", "SHUTDOWN_GRACE",
}  # fmt: skip
PASSWORDS = {"POSTGRES_PASSWORD", "OWNER_PASSWORD", "WEB_PASSWORD", "BACKFILL_PASSWORD"}
SECRETS = {"DATABASE_URL", "SECRET_KEY", "LLM_API_KEY", "OPENAI_API_KEY", "METRICS_TOKEN"}
OTHERS = {
    "FORWARDED_ALLOW_IPS",  # gunicorn's
    *PASSWORDS, "POSTGRES_USER", "POSTGRES_DB",  # the database container's
    "PUBLISHED_PORT", "EXTRAS", "BACKFILL_MAX_COST",  # compose.yaml's own
}  # fmt: skip
ROLES = {"migrate": "owner", "web": "web", "backfill": "backfill", "worker": "backfill"}
AFTER_GRACE_S = 10  # SIGKILL no sooner: docs/howto/start-and-stop-a-server.md


def settings() -> set[str]:
    """Every variable that verse/settings.py reads."""
    return set(re.findall(r'env\.\w+\(\s*"([A-Z_0-9]+)"', (ROOT / "verse/settings.py").read_text()))


def named_in(path: Path) -> set[str]:
    """Every variable of an example env file, commented out or not."""
    return set(re.findall(r"^#?([A-Z][A-Z_0-9]*)=", path.read_text(), re.MULTILINE))


def compose() -> dict[str, Any]:
    """The services of compose.yaml by name."""
    services: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    return services


def containers() -> list[dict[str, Any]]:
    """Every container of every pod."""
    return [container for pod in pods().values() for container in containers_of(pod)]


def web() -> dict[str, Any]:
    """The server's container."""
    container: dict[str, Any] = pods()["Deployment/verse"]["containers"][0]
    return container


@pytest.mark.parametrize("version", [(), ("--kubernetes-version", OLDEST)], ids=["newest", OLDEST])
def test_the_manifests_are_valid(version: tuple[str, ...]) -> None:
    validated = subprocess.run(
        [BIN / "kubernetes-validate", "--strict", *version, *manifests()],
        capture_output=True,
        text=True,
    )
    output = validated.stdout + validated.stderr
    assert validated.returncode == 0, output
    assert output.count(" passed for resource ") == len(objects()), output


def test_the_env_example_names_each_setting() -> None:
    assert named_in(ROOT / ".env.example") == settings()


def test_compose_uses_existing_settings_and_all_needed_ones() -> None:
    text = (DEPLOY / "compose.yaml").read_text()
    used = set(re.findall(r"\$\{(\w+)", text)) | named_in(DEPLOY / "env.example")
    for service in compose().values():
        used |= set(service.get("environment", {}))
    assert used - OTHERS <= settings()
    for service in ("migrate", "web", "backfill", "worker"):
        assert set(compose()[service]["environment"]) >= NEEDED
        assert compose()[service]["env_file"] == ".env"
    needed = NEEDED - {"DATABASE_URL", "SHUTDOWN_GRACE"} | PASSWORDS
    assert named_in(DEPLOY / "env.example") >= needed


def test_compose_gives_each_service_its_own_role_and_password_only() -> None:
    for service, role in ROLES.items():
        environment = compose()[service]["environment"]
        password = f"${{{role.upper()}_PASSWORD:?is missing in deploy/.env}}"
        assert environment["DATABASE_URL"] == f"postgresql://verse_{role}:{password}@db:5432/verse"
        assert {environment[name] for name in PASSWORDS} == {""}  # else .env would give them


def test_the_manifests_use_existing_settings_and_all_needed_ones() -> None:
    secret, plain = objects()["Secret/verse"]["stringData"], objects()["ConfigMap/verse"]["data"]
    assert (secret.keys() | plain.keys()) - OTHERS <= settings()
    assert secret.keys() | plain.keys() >= NEEDED
    assert secret.keys() == SECRETS
    both = [{"configMapRef": {"name": "verse"}}, {"secretRef": {"name": "verse"}}]
    assert all(item["envFrom"] == both and "env" not in item for item in containers())


def test_no_secret_is_in_a_file() -> None:
    values = objects()["Secret/verse"]["stringData"].values()
    assert set(values) == {"to be set", ""}  # no setting accepts a space
    for service in compose().values():
        for name, value in service.get("environment", {}).items():
            if name in SECRETS | PASSWORDS:
                assert "${" in value or not value, name
    filled = re.findall(r"^(\w+)=(.+)$", (DEPLOY / "env.example").read_text(), re.MULTILINE)
    assert {name for name, _ in filled} & (SECRETS | PASSWORDS) == set()


def test_kubectl_applies_no_secret_and_no_job_with_the_folder() -> None:
    texts = [path.read_text() for path in FOLDER.glob("*.yaml")]
    kinds = {item["kind"] for text in texts for item in yaml.safe_load_all(text)}
    assert kinds == {"ConfigMap", "Deployment", "Service", "PodDisruptionBudget", "CronJob"}
    jobs = {path.name for path in (FOLDER / "jobs").iterdir()}
    assert jobs == {"migrate.yaml", "backfill.yaml"}


def test_each_command_exists() -> None:
    words = [
        str(word)
        for item in (*compose().values(), *containers())
        for word in item.get("command", ())
    ]
    used = set(re.findall(r"manage\.py (\w+)", " ".join(words)))
    maintenance = {"clear_expired", "clearsessions"}
    assert used >= maintenance | {"enable_vector", "migrate", "backfill_embeddings", "embed_worker"}
    assert used <= set(get_commands())


@pytest.mark.parametrize("name", ["containers", "deployment", "howto/turn-memory-off"])
def test_files_and_services_named_in_the_docs_exist(name: str) -> None:
    page = (ROOT / f"docs/{name}.md").read_text()
    for path in set(re.findall(r"deploy/[\w/.-]*\w", page)) - {"deploy/.env"}:
        assert (ROOT / path).exists(), path
    for kind, item in re.findall(r"\b(deployment|job)[/ ](verse[\w-]*)", page):
        assert f"{kind.title()}/{item}" in objects()
    services = re.findall(r"docker compose (?:run|exec)(?: --name \S+| -\S+)* (\w+)", page)
    assert set(services) <= compose().keys()


def test_the_page_about_containers_names_every_service_and_variable() -> None:
    page = (ROOT / "docs/containers.md").read_text()
    assert all(f"`{name}`" in page for name in ("PUBLISHED_PORT", "BACKFILL_MAX_COST"))
    services = re.findall(r"docker compose (?:run|exec)(?: --name \S+| -\S+)* (\w+)", page)
    assert set(services) == compose().keys()


def test_the_probes_use_the_right_paths() -> None:
    paths = {
        name: web()[f"{name}Probe"]["httpGet"]["path"]
        for name in ("startup", "readiness", "liveness")
    }
    assert paths == {"startup": "/healthz", "readiness": "/readyz", "liveness": "/healthz"}
    command = ["CMD", "python", "-m", "verse.probe", "/readyz"]
    assert compose()["web"]["healthcheck"]["test"] == command


def test_a_stop_is_announced_and_has_enough_time() -> None:
    pod = pods()["Deployment/verse"]
    grace_s = int(objects()["ConfigMap/verse"]["data"]["SHUTDOWN_GRACE"])
    announce = web()["lifecycle"]["preStop"]["exec"]["command"][-1]
    sleep = re.fullmatch(r"touch \.verse/draining && sleep (\d+)", announce)
    assert sleep
    wait_s = int(sleep[1])
    readiness = web()["readinessProbe"]
    assert wait_s > readiness["periodSeconds"] * readiness["failureThreshold"]
    assert pod["terminationGracePeriodSeconds"] >= wait_s + grace_s + AFTER_GRACE_S
    assert ".verse/draining" in web()["lifecycle"]["postStart"]["exec"]["command"]
    grace = compose()["web"]["environment"]["SHUTDOWN_GRACE"]
    default_s = int(grace.removeprefix("${SHUTDOWN_GRACE:-").rstrip("}"))
    assert int(compose()["web"]["stop_grace_period"].rstrip("s")) >= default_s + AFTER_GRACE_S


@pytest.mark.parametrize("name", pods())
def test_a_pod_has_no_privileges_and_writes_only_to_its_volumes(name: str) -> None:
    pod = pods()[name]
    assert pod["securityContext"]["runAsNonRoot"]
    ids = f"{pod['securityContext']['runAsUser']}:{pod['securityContext']['fsGroup']}"
    users = re.findall(r"^USER (\S+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert users == [ids]
    assert pod["automountServiceAccountToken"] is False
    assert {item["name"] for item in pod["volumes"] if "emptyDir" in item} == {"state", "tmp"}
    for container in containers_of(pod):
        security = container["securityContext"]
        assert security["readOnlyRootFilesystem"]
        assert not security["allowPrivilegeEscalation"]
        assert security["capabilities"] == {"drop": ["ALL"]}
        assert {"cpu", "memory"} <= container["resources"]["requests"].keys()
        assert "memory" in container["resources"]["limits"]
        assert {"/app/.verse", "/tmp"} == {
            mount["mountPath"] for mount in container["volumeMounts"]
        }


def test_compose_starts_services_in_order_and_the_backfill_on_request() -> None:
    services = compose()
    assert services["migrate"]["depends_on"] == {"db": {"condition": "service_healthy"}}
    assert services["web"]["depends_on"]["migrate"] == {
        "condition": "service_completed_successfully"
    }
    assert services["backfill"]["profiles"] == ["backfill"]
    assert services["worker"]["profiles"] == ["worker"]
    optional = [name for name, item in services.items() if "profiles" in item]
    assert optional == ["backfill", "worker"]
    assert re.fullmatch(r"pgvector/pgvector:\d+\.\d+\.\d+-pg16", services["db"]["image"])
    for name in ROLES:
        assert services[name]["read_only"]
        assert services[name]["cap_drop"] == ["ALL"]
        assert services[name]["tmpfs"][0].startswith("/app/.verse:uid=10001,")
