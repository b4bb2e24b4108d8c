"""The Kubernetes manifests, and what a cluster makes of them: commands and environments."""

from pathlib import Path
from typing import Any

import yaml

from tests.support import ROOT

FOLDER = ROOT / "deploy/kubernetes"


def manifests() -> list[Path]:
    """Every manifest, with the template of the secret."""
    return sorted([*FOLDER.rglob("*.yaml"), *FOLDER.rglob("*.example")])


def objects() -> dict[str, dict[str, Any]]:
    """Every object of the manifests, by kind/name."""
    items = [item for path in manifests() for item in yaml.safe_load_all(path.read_text())]
    return {f"{item['kind']}/{item['metadata']['name']}": item for item in items}


def pods() -> dict[str, dict[str, Any]]:
    """The pod's spec of each workload, by kind/name."""
    specs = {}
    for name, item in objects().items():
        if item["kind"] in {"Deployment", "Job"}:
            specs[name] = item["spec"]
        elif item["kind"] == "CronJob":
            specs[name] = item["spec"]["jobTemplate"]["spec"]
    return {name: spec["template"]["spec"] for name, spec in specs.items()}


def containers_of(pod: dict[str, Any]) -> list[dict[str, Any]]:
    """A pod's containers in the order of their start: init containers first."""
    return [*pod.get("initContainers", ()), *pod["containers"]]


def containers(workload: str) -> list[dict[str, Any]]:
    """The containers of this kind/name in the order of their start."""
    return containers_of(pods()[workload])


def environment(container: dict[str, Any], **secret: str) -> dict[str, str]:
    """The container's variables: those of its config maps, and of its secrets with these values.

    KeyError: ``secret`` has a name that the secret's template lacks.
    """
    values: dict[str, str] = {}
    known = objects()
    for source in container["envFrom"]:
        if "configMapRef" in source:
            values |= known[f"ConfigMap/{source['configMapRef']['name']}"]["data"]
        else:
            template = known[f"Secret/{source['secretRef']['name']}"]["stringData"]
            values |= template | {name: secret[name] for name in template if name in secret}
            if unknown := secret.keys() - template.keys():
                raise KeyError(*unknown)
    return values
