"""Static checks of the compose file; smoke.sh runs the stack."""

from typing import Any

import pytest

from catalog.server.worker_protocol import stop_limit
from catalog.settings import SECRET_FIELDS, load_settings, variable_names
from tests.deployment import compose

STACK = compose.stack()
SERVICES: dict[str, dict[str, Any]] = STACK["services"]

# Long-running services; the others exit by themselves.
LASTING = sorted(name for name, service in SERVICES.items() if service["restart"] != "no")
ALWAYS = sorted(name for name, service in SERVICES.items() if "profiles" not in service)

SECRETS = {variable_names()[field] for field in SECRET_FIELDS}


def is_internal(network: str) -> bool:
    return bool((STACK["networks"][network] or {}).get("internal"))


class TestServices:
    def test_services_outside_profiles_are_the_core_ones(self) -> None:
        assert ALWAYS == ["app", "mysql", "nginx", "valkey"]
        assert set(SERVICES) - set(ALWAYS) == {"grafana", "load", "prometheus"}

    @pytest.mark.parametrize("name", LASTING)
    def test_service_has_a_health_check_and_restarts(self, name: str) -> None:
        service = SERVICES[name]

        assert service["healthcheck"]["test"]
        assert service["restart"] == "unless-stopped"
        assert compose.seconds(compose.default(service["stop_grace_period"])) >= 10

    @pytest.mark.parametrize("name", sorted(SERVICES))
    def test_service_runs_without_privileges(self, name: str) -> None:
        service = SERVICES[name]

        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert "cap_add" not in service
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert not {"privileged", "pid", "ipc", "network_mode", "devices"} & set(service)

    @pytest.mark.parametrize("name", sorted(SERVICES))
    def test_service_does_not_run_as_root(self, name: str) -> None:
        service = SERVICES[name]

        # Images that set a user: ours, and that of Prometheus, whose user owns its data.
        own = {SERVICES["app"]["image"], SERVICES["prometheus"]["image"]}
        assert "build" in service or service["image"] in own or service["user"]

    @pytest.mark.parametrize("name", sorted(SERVICES))
    def test_service_has_memory_process_and_log_limits(self, name: str) -> None:
        limits = SERVICES[name]["deploy"]["resources"]["limits"]

        assert compose.default(limits["memory"])[-1] in "MG"
        assert limits["pids"] <= 1024
        assert SERVICES[name]["logging"]["options"].keys() == {"max-size", "max-file"}

    @pytest.mark.parametrize("name", sorted(SERVICES))
    def test_service_has_no_fixed_container_or_host_name(self, name: str) -> None:
        assert "container_name" not in SERVICES[name]
        assert "hostname" not in SERVICES[name]

    def test_services_wait_for_healthy_dependencies(self) -> None:
        needs = {name: service.get("depends_on", {}) for name, service in SERVICES.items()}

        assert needs["app"].keys() == {"mysql", "valkey"}
        assert needs["nginx"].keys() == {"app"}
        conditions = {need["condition"] for needed in needs.values() for need in needed.values()}
        assert conditions == {"service_healthy"}

    def test_app_stop_grace_period_exceeds_its_longest_stop(self) -> None:
        grace = compose.seconds(compose.default(SERVICES["app"]["stop_grace_period"]))

        assert grace > stop_limit(load_settings())


class TestNetworks:
    def test_only_nginx_is_published_and_only_on_loopback(self) -> None:
        published = {name: SERVICES[name]["ports"] for name in ALWAYS if "ports" in SERVICES[name]}

        assert published == {"nginx": ["${CATALOG_HTTP_BIND:-127.0.0.1:8080}:80"]}

    @pytest.mark.parametrize("name", sorted(set(SERVICES) - set(ALWAYS)))
    def test_profile_service_is_published_on_loopback_at_most(self, name: str) -> None:
        for port in SERVICES[name].get("ports", ()):
            assert compose.default(port).startswith("127.0.0.1:")

    @pytest.mark.parametrize("name", ["mysql", "valkey"])
    def test_databases_are_reachable_from_the_app_alone(self, name: str) -> None:
        (network,) = SERVICES[name]["networks"]
        members = {each for each, service in SERVICES.items() if network in service["networks"]}

        assert is_internal(network)
        assert members == {"app", "mysql", "valkey"}

    def test_app_has_internal_networks_only(self) -> None:
        assert all(is_internal(network) for network in SERVICES["app"]["networks"])

    def test_trusted_proxy_network_holds_nginx_and_the_app_alone(self) -> None:
        believed = SERVICES["app"]["environment"]["CATALOG_TRUSTED_PROXIES"]
        (network,) = (
            name
            for name, network in STACK["networks"].items()
            if network and {"subnet": believed} in network.get("ipam", {}).get("config", [])
        )
        members = {name for name, service in SERVICES.items() if network in service["networks"]}

        assert members == {"nginx", "app"}
        assert load_settings(trusted_proxies=compose.default(believed)).trusted_proxies


class TestSettings:
    def test_app_environment_has_every_setting_except_the_images_own(self) -> None:
        told = set(SERVICES["app"]["environment"])
        settings = set(variable_names().values())
        # The image sets it.
        ours = {"CATALOG_BIND"}

        assert told == {f"{name}_FILE" for name in SECRETS} | (settings - SECRETS - ours)

    def test_settings_are_passed_through_without_defaults_except_three(self) -> None:
        environment = SERVICES["app"]["environment"]
        given = {name: value for name, value in environment.items() if value is not None}

        # The others come from .env or are unset, so that their defaults are defined in one place.
        assert {name for name in given if not name.endswith("_FILE")} == {
            "CATALOG_ENV",
            "CATALOG_TRUSTED_PROXIES",
            "CATALOG_ACCESS_LOG",
        }

    def test_nginx_gets_only_settings_that_the_app_gets_too(self) -> None:
        environment = SERVICES["nginx"]["environment"]

        assert environment.items() <= SERVICES["app"]["environment"].items()
        site = (compose.ROOT / "docker/nginx/compose/site.sh").read_text(encoding="utf-8")
        assert all(name in site for name in environment)

    def test_interpolated_variables_are_in_the_example(self) -> None:
        example = (compose.ROOT / ".env.example").read_text(encoding="utf-8")
        # Build arguments, which build.sh fills in.
        building = {"PIP_INDEX_URL", "CATALOG_VERSION", "CATALOG_REVISION", "CATALOG_SOURCE"}

        for name in compose.variables() - building:
            assert f"\n#{name}=" in example, name


class TestSecrets:
    def test_environments_hold_no_secret(self) -> None:
        for service in SERVICES.values():
            for name, value in (service.get("environment") or {}).items():
                if name in SECRETS or any(word in name for word in ("PASSWORD", "SECRET", "TOKEN")):
                    assert name.endswith("_FILE") or value is None, name
                    assert name not in SECRETS
                if name.endswith("_FILE"):
                    secret = str(value).removeprefix("/run/secrets/")
                    assert secret in service["secrets"], name

    def test_services_have_no_env_file(self) -> None:
        assert not [name for name, service in SERVICES.items() if "env_file" in service]

    def test_secrets_come_from_files(self) -> None:
        used = {name for service in SERVICES.values() for name in service.get("secrets", ())}

        assert STACK["secrets"] == {name: {"file": f".secrets/{name}"} for name in used}


class TestMysql:
    def test_mysql_flushes_every_commit_to_disk(self) -> None:
        text = (compose.ROOT / "docker/mysql/conf.d/catalog.cnf").read_text(encoding="utf-8")
        lines = text.splitlines()

        assert "innodb_flush_log_at_trx_commit = 1" in lines
        assert "sync_binlog = 1" in lines
        assert "character_set_server = utf8mb4" in lines
