"""The Swarm stack: valid in Swarm's format, and consistent with the compose stack."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from catalog.settings import SECRET_FIELDS, variable_names

ROOT = Path(__file__).parents[2]
FILE = ROOT / "docker" / "swarm.yml"


def stack() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(FILE.read_text())
    return content


SERVICES: dict[str, Any] = stack()["services"]


class TestStack:
    def test_stack_is_valid_for_docker(self) -> None:
        docker = shutil.which("docker")
        probe = [str(docker), "stack", "config", "--help"]
        if docker is None or subprocess.run(probe, check=False, capture_output=True).returncode:
            pytest.skip("docker is not there, or does not know of stacks")

        result = subprocess.run(
            [docker, "stack", "config", "--compose-file", FILE],
            check=False,
            capture_output=True,
            text=True,
        )

        assert result.returncode == 0, result.stderr
        assert "Ignoring" not in result.stderr

    @pytest.mark.parametrize("name", SERVICES)
    def test_service_rolls_back_after_a_failed_update(self, name: str) -> None:
        deploy = SERVICES[name]["deploy"]

        assert deploy["update_config"]["failure_action"] == "rollback"
        assert deploy["rollback_config"]["order"] == deploy["update_config"]["order"]
        assert deploy["restart_policy"]["condition"] == "any"
        assert "memory" in deploy["resources"]["limits"]
        assert "healthcheck" in SERVICES[name]

    def test_app_update_starts_new_tasks_first(self) -> None:
        assert SERVICES["app"]["deploy"]["update_config"]["order"] == "start-first"
        assert SERVICES["app"]["deploy"]["replicas"] >= 2

    def test_used_resources_are_declared_and_their_files_exist(self) -> None:
        for kind in ("configs", "secrets", "networks", "volumes"):
            used = {_name(each) for service in SERVICES.values() for each in service.get(kind, [])}
            assert used - {""} <= set(stack()[kind]), kind
            if kind in {"configs", "secrets"}:
                assert used == set(stack()[kind])
        for config in stack()["configs"].values():
            assert (FILE.parent / config["file"]).is_file(), config["file"]

    def test_nginx_gets_the_same_files_as_in_compose(self) -> None:
        folder = ROOT / "docker" / "nginx"
        targets = {config["target"] for config in SERVICES["nginx"]["configs"]}
        files = {path for path in folder.rglob("*") if path.is_file()}
        # Those of the bare-metal site.
        own = ("listen.conf", "upstream.conf", "site.conf")
        files -= {folder / "catalog" / name for name in own}
        files -= {folder / "kustomization.yaml"}

        assert targets == {f"/opt/nginx/{path.relative_to(folder)}" for path in files}

    def test_variables_are_settings_of_the_service(self) -> None:
        known = {*variable_names().values()}
        known |= {f"{variable_names()[field]}_FILE" for field in SECRET_FIELDS}

        assert set(SERVICES["app"]["environment"]) <= known

    def test_app_stop_grace_period_exceeds_its_longest_stop(self) -> None:
        grace = int(SERVICES["app"]["stop_grace_period"].removesuffix("s"))

        assert grace > float(SERVICES["app"]["environment"]["CATALOG_DRAIN_DELAY"]) + 25 + 5

    def test_only_nginx_is_published(self) -> None:
        assert [name for name, service in SERVICES.items() if "ports" in service] == ["nginx"]

    def test_stack_is_consistent_with_compose(self) -> None:
        compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]

        for name, service in SERVICES.items():
            for key in ("image", "user", "entrypoint", "cap_drop"):
                if key in service and (name, key) != ("mysql", "entrypoint"):
                    assert service[key] == compose[name][key], (name, key)
            assert set(service["networks"]) <= {*compose[name]["networks"], "metrics"}
        assert set(SERVICES["app"]["environment"]) <= set(compose["app"]["environment"])


def _name(part: Any) -> str:
    """Return the name of a network, config, secret or volume; empty for a tmpfs."""
    if isinstance(part, str):
        return part
    return str(part.get("source", "")) if part.get("type") != "tmpfs" else ""
