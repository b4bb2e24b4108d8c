"""compose.yaml and the Kubernetes manifests: valid, of one mind with the settings, and safe to stop."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from django.core.management import get_commands

from tests.support import ROOT

BIN = Path(sys.executable).parent
DEPLOY = ROOT / "deploy"
KUBERNETES = DEPLOY / "kubernetes"
MANIFESTS = sorted([*KUBERNETES.rglob("*.yaml"), *KUBERNETES.rglob("*.example")])
OLDEST = "1.31.0"  # Kubernetes: podFailurePolicy is stable from here on
NEEDED = {
    "DATABASE_URL", "SECRET_KEY", "LLM_API_KEY", "OPENAI_API_KEY",
    "ALLOWED_HOSTS", "CSRF_TRUSTED_ORIGINS", "WEB_CONCURRENCY", "SHUTDOWN_GRACE",
}  # fmt: skip
SECRETS = {"DATABASE_URL", "SECRET_KEY", "LLM_API_KEY", "OPENAI_API_KEY"}
OTHERS = {
    "FORWARDED_ALLOW_IPS",  # gunicorn's
    "POSTGRES_PASSWORD", "POSTGRES_USER", "POSTGRES_DB",  # the database image's
    "PUBLISHED_PORT", "EXTRAS", "BACKFILL_MAX_COST",  # compose.yaml's own
}  # fmt: skip
AFTER_GRACE_S = 10  # docs/operations.md: what the end takes beyond SHUTDOWN_GRACE


def settings() -> set[str]:
    """Every variable that verse/settings.py reads."""
    return set(re.findall(r'env\.\w+\(\s*"([A-Z_0-9]+)"', (ROOT / "verse/settings.py").read_text()))


def named_in(path: Path) -> set[str]:
    """Every variable of an example of an env file, commented out or not."""
    return set(re.findall(r"^#?([A-Z][A-Z_0-9]*)=", path.read_text(), re.MULTILINE))


def compose() -> dict[str, Any]:
    """compose.yaml's services by name."""
    services: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    return services


def objects() -> dict[str, dict[str, Any]]:
    """Every object of the manifests, by kind/name."""
    found = [one for path in MANIFESTS for one in yaml.safe_load_all(path.read_text())]
    return {f"{one['kind']}/{one['metadata']['name']}": one for one in found}


def pods() -> dict[str, dict[str, Any]]:
    """The pod's spec of each workload, by kind/name."""
    specs = {
        name: one["spec"] for name, one in objects().items() if one["kind"] in {"Deployment", "Job"}
    }
    crons = {
        name: one["spec"]["jobTemplate"]["spec"]
        for name, one in objects().items()
        if one["kind"] == "CronJob"
    }
    return {name: spec["template"]["spec"] for name, spec in (specs | crons).items()}


def containers() -> list[dict[str, Any]]:
    """Every container of every pod."""
    return [
        one
        for pod in pods().values()
        for one in (*pod.get("initContainers", ()), *pod["containers"])
    ]


def web() -> dict[str, Any]:
    """The server's container."""
    found: dict[str, Any] = pods()["Deployment/verse"]["containers"][0]
    return found


@pytest.mark.parametrize("version", [(), ("--kubernetes-version", OLDEST)], ids=["newest", OLDEST])
def test_the_manifests_are_valid(version: tuple[str, ...]) -> None:
    validated = subprocess.run(
        [BIN / "kubernetes-validate", "--strict", *version, *MANIFESTS],
        capture_output=True,
        text=True,
    )
    output = validated.stdout + validated.stderr
    assert validated.returncode == 0, output
    assert output.count(" passed for resource ") == len(objects()), output


def test_the_example_of_the_file_env_names_each_setting() -> None:
    assert named_in(ROOT / ".env.example") == settings()


def test_compose_names_settings_only_and_the_needed_ones() -> None:
    text = (DEPLOY / "compose.yaml").read_text()
    asked_for = set(re.findall(r"\$\{(\w+)", text)) | named_in(DEPLOY / "env.example")
    for service in compose().values():
        asked_for |= set(service.get("environment", {}))
    assert asked_for - OTHERS <= settings()
    for service in ("migrate", "web", "backfill"):
        assert set(compose()[service]["environment"]) >= NEEDED
        assert compose()[service]["env_file"] == ".env"
    assert named_in(DEPLOY / "env.example") >= NEEDED - {"DATABASE_URL", "SHUTDOWN_GRACE"} | {
        "POSTGRES_PASSWORD"
    }


def test_the_manifests_name_settings_only_and_the_needed_ones() -> None:
    secret, plain = objects()["Secret/verse"]["stringData"], objects()["ConfigMap/verse"]["data"]
    assert (secret.keys() | plain.keys()) - OTHERS <= settings()
    assert secret.keys() | plain.keys() >= NEEDED
    assert secret.keys() == SECRETS
    both = [{"configMapRef": {"name": "verse"}}, {"secretRef": {"name": "verse"}}]
    assert all(one["envFrom"] == both and "env" not in one for one in containers())


def test_no_secret_is_in_a_file() -> None:
    values = objects()["Secret/verse"]["stringData"].values()
    assert set(values) == {"to be set", ""}  # verse/environment.py refuses a space in each of them
    for service in compose().values():
        for name, value in service.get("environment", {}).items():
            if name in SECRETS | {"POSTGRES_PASSWORD"}:
                assert "${" in value, name
    filled = re.findall(r"^(\w+)=(.+)$", (DEPLOY / "env.example").read_text(), re.MULTILINE)
    assert {name for name, _ in filled} & (SECRETS | {"POSTGRES_PASSWORD"}) == set()


def test_kubectl_applies_neither_the_template_nor_a_job_with_the_folder() -> None:
    kinds = {
        one["kind"]
        for path in KUBERNETES.glob("*.yaml")
        for one in yaml.safe_load_all(path.read_text())
    }
    assert kinds == {"ConfigMap", "Deployment", "Service", "PodDisruptionBudget", "CronJob"}
    assert {path.name for path in (KUBERNETES / "jobs").iterdir()} == {
        "migrate.yaml",
        "backfill.yaml",
    }


def test_each_command_exists() -> None:
    words = [
        " ".join(map(str, one["command"]))
        for one in (*compose().values(), *containers())
        if "command" in one
    ]
    named = set(re.findall(r"manage\.py (\w+)", " ".join(words)))
    assert named >= {
        "enable_vector",
        "migrate",
        "backfill_embeddings",
        "clear_expired",
        "clearsessions",
    }
    assert named <= set(get_commands())


def test_what_the_page_names_is_there() -> None:
    page = (ROOT / "docs/containers.md").read_text()
    for path in re.findall(r"deploy/[\w/.-]*\w", page):
        assert (ROOT / path).exists(), path
    for kind, name in re.findall(r"\b(deployment|job)[/ ](verse[\w-]*)", page):
        assert f"{kind.title()}/{name}" in objects()
    services = re.findall(r"docker compose (?:run|exec)(?: --name \S+| -\S+)* (\w+)", page)
    assert set(services) == compose().keys()
    assert all(f"`{name}`" in page for name in ("PUBLISHED_PORT", "BACKFILL_MAX_COST"))


def test_the_probes_ask_what_they_should() -> None:
    paths = {
        name: web()[f"{name}Probe"]["httpGet"]["path"]
        for name in ("startup", "readiness", "liveness")
    }
    assert paths == {"startup": "/healthz", "readiness": "/readyz", "liveness": "/healthz"}
    assert compose()["web"]["healthcheck"]["test"] == [
        "CMD",
        "python",
        "-m",
        "verse.probe",
        "/readyz",
    ]


def test_a_stop_is_announced_and_given_enough_time() -> None:
    pod = pods()["Deployment/verse"]
    grace_s = int(objects()["ConfigMap/verse"]["data"]["SHUTDOWN_GRACE"])
    announce = web()["lifecycle"]["preStop"]["exec"]["command"][-1]
    wait_s = int(re.fullmatch(r"touch \.verse/draining && sleep (\d+)", announce)[1])  # type: ignore[index]
    readiness = web()["readinessProbe"]
    assert wait_s > readiness["periodSeconds"] * readiness["failureThreshold"]
    assert pod["terminationGracePeriodSeconds"] >= wait_s + grace_s + AFTER_GRACE_S
    assert ".verse/draining" in web()["lifecycle"]["postStart"]["exec"]["command"]
    default_s = int(
        compose()["web"]["environment"]["SHUTDOWN_GRACE"]
        .removeprefix("${SHUTDOWN_GRACE:-")
        .rstrip("}")
    )
    assert int(compose()["web"]["stop_grace_period"].rstrip("s")) >= default_s + AFTER_GRACE_S


@pytest.mark.parametrize("name", pods())
def test_a_pod_has_no_privilege_and_writes_where_it_may(name: str) -> None:
    pod = pods()[name]
    assert pod["securityContext"]["runAsNonRoot"]
    user = next(
        line for line in (ROOT / "Dockerfile").read_text().splitlines() if line.startswith("USER ")
    )
    assert user == f"USER {pod['securityContext']['runAsUser']}:{pod['securityContext']['fsGroup']}"
    assert pod["automountServiceAccountToken"] is False
    assert {one["name"] for one in pod["volumes"] if "emptyDir" in one} == {"state", "tmp"}
    for one in (*pod.get("initContainers", ()), *pod["containers"]):
        security = one["securityContext"]
        assert security["readOnlyRootFilesystem"]
        assert not security["allowPrivilegeEscalation"]
        assert security["capabilities"] == {"drop": ["ALL"]}
        assert {"cpu", "memory"} <= one["resources"]["requests"].keys()
        assert "memory" in one["resources"]["limits"]
        assert {"/app/.verse", "/tmp"} == {mount["mountPath"] for mount in one["volumeMounts"]}


def test_the_services_of_compose_start_in_order_and_the_backfill_only_when_asked() -> None:
    services = compose()
    assert services["migrate"]["depends_on"] == {"db": {"condition": "service_healthy"}}
    assert services["web"]["depends_on"]["migrate"] == {
        "condition": "service_completed_successfully"
    }
    assert services["backfill"]["profiles"] == ["backfill"]
    assert [name for name, one in services.items() if "profiles" in one] == ["backfill"]
    assert re.fullmatch(r"pgvector/pgvector:\d+\.\d+\.\d+-pg16", services["db"]["image"])
    for name in ("migrate", "web", "backfill"):
        assert services[name]["read_only"]
        assert services[name]["cap_drop"] == ["ALL"]
        assert services[name]["tmpfs"][0].startswith("/app/.verse:uid=10001,")
