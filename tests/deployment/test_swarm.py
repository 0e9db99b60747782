"""The stack for Docker Swarm: in the format that it reads, and like the stack for Compose."""

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
    def test_docker_reads_it(self) -> None:
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
    def test_each_service_is_rolled_out_and_back(self, name: str) -> None:
        deploy = SERVICES[name]["deploy"]

        assert deploy["update_config"]["failure_action"] == "rollback"
        assert deploy["rollback_config"]["order"] == deploy["update_config"]["order"]
        assert deploy["restart_policy"]["condition"] == "any"
        assert "memory" in deploy["resources"]["limits"]
        assert "healthcheck" in SERVICES[name]

    def test_a_new_instance_starts_before_an_old_one_goes(self) -> None:
        assert SERVICES["app"]["deploy"]["update_config"]["order"] == "start-first"
        assert SERVICES["app"]["deploy"]["replicas"] >= 2

    def test_what_is_used_is_declared_and_the_files_are_there(self) -> None:
        for kind in ("configs", "secrets", "networks", "volumes"):
            used = {_name(each) for service in SERVICES.values() for each in service.get(kind, [])}
            assert used - {""} <= set(stack()[kind]), kind
            if kind in {"configs", "secrets"}:
                assert used == set(stack()[kind])
        for config in stack()["configs"].values():
            assert (FILE.parent / config["file"]).is_file(), config["file"]

    def test_nginx_has_the_files_that_compose_gives_it(self) -> None:
        folder = ROOT / "docker" / "nginx"
        targets = {config["target"] for config in SERVICES["nginx"]["configs"]}
        files = {path for path in folder.rglob("*") if path.is_file()}
        # Another site's.
        files -= {folder / "catalog" / name for name in ("listen.conf", "upstream.conf")}
        files -= {folder / "kustomization.yaml"}

        assert targets == {f"/opt/nginx/{path.relative_to(folder)}" for path in files}

    def test_variables_are_settings_of_the_service(self) -> None:
        known = {*variable_names().values()}
        known |= {f"{variable_names()[field]}_FILE" for field in SECRET_FIELDS}

        assert set(SERVICES["app"]["environment"]) <= known

    def test_the_service_may_stop_in_peace(self) -> None:
        grace = int(SERVICES["app"]["stop_grace_period"].removesuffix("s"))

        assert grace > float(SERVICES["app"]["environment"]["CATALOG_DRAIN_DELAY"]) + 25 + 5

    def test_only_nginx_is_published(self) -> None:
        assert [name for name, service in SERVICES.items() if "ports" in service] == ["nginx"]

    def test_it_is_like_the_stack_for_compose(self) -> None:
        compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]

        for name, service in SERVICES.items():
            for key in ("image", "user", "entrypoint", "cap_drop"):
                if key in service and (name, key) != ("mysql", "entrypoint"):
                    assert service[key] == compose[name][key], (name, key)
            assert set(service["networks"]) <= {*compose[name]["networks"], "metrics"}
        assert set(SERVICES["app"]["environment"]) <= set(compose["app"]["environment"])


def _name(part: Any) -> str:
    """Of a network, a config or a secret; of a volume only if it has one."""
    if isinstance(part, str):
        return part
    return str(part.get("source", "")) if part.get("type") != "tmpfs" else ""
