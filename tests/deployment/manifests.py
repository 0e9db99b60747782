"""The Kubernetes manifests, parsed and built as Kustomize does.

It covers resources, components, ConfigMap generators and image names, which is all that the
manifests use. Where kubectl is installed, a test compares the two.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
KUBERNETES = ROOT / "docker" / "kubernetes"
OVERLAYS = [KUBERNETES / name for name in ("base", "overlays/production", "overlays/trial")]
MIGRATION = KUBERNETES / "migration"

Manifest = dict[str, Any]


def documents(file: Path) -> list[Manifest]:
    return list(yaml.safe_load_all(file.read_text()))


def kustomization(folder: Path) -> Manifest:
    (content,) = documents(folder / "kustomization.yaml")
    return content


def folders() -> list[Path]:
    """Return all folders that hold a kustomization."""
    found = [file.parent for file in sorted(KUBERNETES.rglob("kustomization.yaml"))]
    return [*found, ROOT / "docker" / "nginx"]


def listed(folder: Path) -> set[Path]:
    """Return the files and folders that a kustomization names."""
    content = kustomization(folder)
    generators = content.get("configMapGenerator", [])
    names = [
        *content.get("resources", []),
        *content.get("components", []),
        *(patch["path"] for patch in content.get("patches", [])),
        *(name for each in generators for key in ("files", "envs") for name in each.get(key, [])),
    ]
    return {(folder / name).resolve() for name in names}


def manifests(folder: Path) -> list[Manifest]:
    """Return all resources of a kustomization, before patches and hashes."""
    found: list[Manifest] = []
    content = kustomization(folder)
    for name in (*content.get("resources", []), *content.get("components", [])):
        path = (folder / name).resolve()
        found += manifests(path) if path.is_dir() else documents(path)
    for generator in content.get("configMapGenerator", []):
        data = {Path(name).name: (folder / name).read_text() for name in generator.get("files", [])}
        for name in generator.get("envs", []):
            data |= dict(environment(folder / name))
        metadata = {"name": generator["name"]}
        found.append({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data})
    return found


def environment(file: Path) -> Iterator[tuple[str, str]]:
    """Yield name and value of each variable in an env file."""
    for line in file.read_text().splitlines():
        if line and not line.startswith("#"):
            name, _, value = line.partition("=")
            yield name, value


def of_kind(found: list[Manifest], *kinds: str) -> list[Manifest]:
    return [manifest for manifest in found if manifest["kind"] in kinds]


def named(found: list[Manifest], kind: str, name: str) -> Manifest:
    (manifest,) = [each for each in of_kind(found, kind) if each["metadata"]["name"] == name]
    return manifest


def pods(found: list[Manifest]) -> list[Manifest]:
    """Return the pod templates of all workloads."""
    workloads = of_kind(found, "Deployment", "StatefulSet", "DaemonSet", "Job")
    return [workload["spec"]["template"] for workload in workloads]
