"""The Kubernetes manifests: valid against Kubernetes' schemas, and consistent with the service.

They have not run on a cluster; these tests check what can be checked without one.
"""

import json
import os
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from catalog.server.worker_protocol import START_LIMIT_SECONDS, stop_limit
from catalog.settings import SECRET_FIELDS, Bind, load_settings, variable_names
from tests.deployment.manifests import (
    KUBERNETES,
    MIGRATION,
    OVERLAYS,
    ROOT,
    Manifest,
    documents,
    environment,
    folders,
    kustomization,
    listed,
    manifests,
    named,
    of_kind,
    pods,
)

# The oldest release that supports all fields in use, and the newest with a schema.
RELEASES = ("1.30", "1.37")

# Custom resources of the Prometheus Operator, for which there is no schema.
OF_OPERATOR = {"ServiceMonitor", "PrometheusRule"}

NGINX = ROOT / "docker" / "nginx"
RULES = ROOT / "docker" / "prometheus" / "rules"

ALL = [*OVERLAYS, MIGRATION]


def name_of(folder: Path) -> str:
    return folder.name


@cache
def applied(folder: Path) -> list[Manifest]:
    return manifests(folder)


def app(folder: Path = KUBERNETES / "base") -> Manifest:
    """Return the pod spec of the service."""
    spec: Manifest = named(applied(folder), "Deployment", "catalog-app")["spec"]["template"]["spec"]
    return spec


def settings() -> dict[str, str]:
    return dict(environment(KUBERNETES / "base" / "settings.env"))


class TestSchema:
    @pytest.mark.parametrize("release", RELEASES)
    def test_manifests_are_valid_in_each_release(self, release: str) -> None:
        # Without duplicates, because validating one takes 0.1 s.
        found = {json.dumps(manifest): manifest for each in ALL for manifest in applied(each)}

        assert len(found) > 20
        for manifest in found.values():
            if manifest["kind"] not in OF_OPERATOR:
                kubernetes_validate.validate(manifest, release, strict=True)

    def test_misspelt_field_fails_validation(self) -> None:
        manifest = json.loads(json.dumps(named(applied(ALL[0]), "Deployment", "catalog-app")))
        manifest["spec"]["template"]["spec"]["terminationGracePeriod"] = 45

        with pytest.raises(kubernetes_validate.ValidationError):
            kubernetes_validate.validate(manifest, RELEASES[-1], strict=True)

    def test_service_monitor_names_an_existing_port(self) -> None:
        found = applied(KUBERNETES / "overlays" / "production")
        (monitor,) = of_kind(found, "ServiceMonitor")
        service = named(found, "Service", "catalog-app")
        (endpoint,) = monitor["spec"]["endpoints"]

        assert monitor["apiVersion"] == "monitoring.coreos.com/v1"
        assert set(monitor["spec"]) == {"jobLabel", "selector", "endpoints"}
        assert monitor["spec"]["selector"]["matchLabels"] == service["metadata"]["labels"]
        # The job label, which rules and dashboard select by.
        assert service["metadata"]["labels"][monitor["spec"]["jobLabel"]] == "catalog"
        assert set(endpoint) == {"port", "path", "interval", "scrapeTimeout"}
        assert endpoint["port"] in {port["name"] for port in service["spec"]["ports"]}
        assert endpoint["path"] == "/metrics"

    def test_rules_equal_those_of_the_compose_stack(self) -> None:
        file = KUBERNETES / "monitoring" / "prometheus-rule.yaml"
        if os.environ.get("CATALOG_TEST_REWRITE"):
            file.write_text(_prometheus_rule(file.read_text()))
        (rule,) = documents(file)
        files = (RULES / "recording.yml", RULES / "alerts.yml")
        groups = [group for each in files for group in yaml.safe_load(each.read_text())["groups"]]

        assert rule["apiVersion"] == "monitoring.coreos.com/v1"
        assert rule["spec"] == {"groups": groups}


def _prometheus_rule(text: str) -> str:
    """Return the manifest with the current rules, their comments included."""
    head, begin, _ = text.partition("  groups:\n")
    files = ("recording.yml", "alerts.yml")
    rules = "".join((RULES / name).read_text().partition("groups:\n")[2] for name in files)
    return head + begin + re.sub(r"^(?=.)", "  ", rules, flags=re.MULTILINE)


class TestKustomize:
    def test_files_are_listed_and_listed_files_exist(self) -> None:
        named_somewhere = {path for folder in folders() for path in listed(folder)}
        there = {path for path in KUBERNETES.rglob("*") if path.is_file()}
        apart = {folder / "kustomization.yaml" for folder in folders()}
        apart |= {KUBERNETES / "secret.example.yaml"}

        assert all(path.exists() for path in named_somewhere)
        assert there - apart <= named_somewhere

    @pytest.mark.parametrize("folder", ALL, ids=name_of)
    def test_kubectl_builds_the_checked_manifests(self, folder: Path) -> None:
        kubectl = shutil.which("kubectl")
        if kubectl is None:
            pytest.skip("kubectl is not there: Kustomize itself is not tried")
        result = subprocess.run(
            [kubectl, "kustomize", folder], check=False, capture_output=True, text=True
        )
        assert result.returncode == 0, result.stderr
        built = list(yaml.safe_load_all(result.stdout))

        def kinds(found: list[Manifest]) -> list[tuple[str, str]]:
            names = ((each["kind"], each["metadata"]["name"]) for each in found)
            return sorted((kind, re.sub(r"-[0-9a-z]{10}$", "", name)) for kind, name in names)

        assert kinds(built) == kinds(applied(folder))
        for manifest in built:
            # Patched here; all others were validated as they are in the files.
            if manifest["kind"] == "Deployment":
                kubernetes_validate.validate(manifest, RELEASES[-1], strict=True)
            if manifest["kind"] != "Namespace":
                assert manifest["metadata"]["namespace"] == "catalog"
        for pod in pods(built):
            for container in pod["spec"]["containers"]:
                # A tag or a digest, so that pods are reproducible.
                assert ":" in container["image"].rpartition("/")[2]
        hashed = r"catalog-(?:settings|nginx(?:-main|-site)?)-[0-9a-z]{10}"
        references = re.findall(hashed, result.stdout)
        names = {each["metadata"]["name"] for each in of_kind(built, "ConfigMap")}
        assert set(references) == names

    def test_nginx_config_maps_hold_all_included_files(self) -> None:
        volumes = named(applied(ALL[0]), "Deployment", "catalog-nginx")["spec"]["template"]["spec"]
        mounted = {"nginx.conf": (NGINX / "nginx.conf").read_text()}
        for name in ("catalog-nginx", "catalog-nginx-site"):
            data = named(applied(ALL[0]), "ConfigMap", name)["data"]
            mounted |= {f"catalog/{file}": text for file, text in data.items()}
        wanted = {
            file
            for text in mounted.values()
            for line in text.splitlines()
            for file in re.findall(r"^\s*(?:include|js_import \w+ from) (\S+);", line)
        }

        assert wanted
        assert wanted <= set(mounted)
        text = json.dumps(volumes["volumes"])
        assert all(name in text for name in ("catalog-nginx-main", "catalog-nginx-site"))


class TestSettings:
    @pytest.mark.parametrize("folder", ALL, ids=name_of)
    def test_variables_are_settings_of_the_service(self, folder: Path) -> None:
        known = {*variable_names().values()}
        known |= {f"{variable_names()[field]}_FILE" for field in SECRET_FIELDS}
        given = [
            each["name"]
            for pod in pods(applied(folder))
            for container in pod["spec"]["containers"]
            if container["image"] == "catalog"
            for each in container.get("env", [])
        ]

        assert {*given, *settings()} <= known

    def test_service_accepts_the_settings(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        contents = {
            "database_url": "mysql://catalog:p@db:3306/catalog",
            "jwt_secret_key": "".join(chr(33 + n) for n in range(64)),
            "admin_password": "correct horse battery staple",
            "limits_url": "",
        }
        for name, value in settings().items():
            if name.endswith("_FILE"):
                file = tmp_path / Path(value).name
                file.write_text(contents.pop(file.name))
                value = str(file)
            monkeypatch.setenv(name, value)

        loaded = load_settings()

        assert not contents
        assert isinstance(loaded.bind, Bind)
        assert loaded.bind.port == 8000
        assert loaded.env == "production"

    def test_secret_settings_are_files_of_the_secret(self) -> None:
        (example,) = documents(KUBERNETES / "secret.example.yaml")
        (mount,) = [m for m in app()["containers"][0]["volumeMounts"] if m["name"] == "secrets"]
        (volume,) = [v for v in app()["volumes"] if v["name"] == "secrets"]
        wanted = {value for name, value in settings().items() if name.endswith("_FILE")}

        assert volume["secret"]["secretName"] == example["metadata"]["name"]
        assert wanted == {f"{mount['mountPath']}/{key}" for key in example["stringData"]}
        # Applying everything must not create a Secret with known values.
        assert not of_kind([each for folder in ALL for each in applied(folder)], "Secret")

    def test_termination_grace_period_exceeds_the_longest_stop(self) -> None:
        longest = stop_limit(load_settings(drain_delay=settings()["CATALOG_DRAIN_DELAY"]))

        assert app()["terminationGracePeriodSeconds"] > longest

    def test_startup_probe_allows_for_the_longest_start(self) -> None:
        probe = app()["containers"][0]["startupProbe"]

        assert probe["periodSeconds"] * probe["failureThreshold"] >= START_LIMIT_SECONDS

    def test_database_has_enough_connections(self) -> None:
        (autoscaler,) = of_kind(applied(ALL[0]), "HorizontalPodAutoscaler")
        deployment = named(applied(ALL[0]), "Deployment", "catalog-app")
        surge = deployment["spec"]["strategy"]["rollingUpdate"]["maxSurge"]
        most = autoscaler["spec"]["maxReplicas"] + surge
        pool = load_settings(jwt_secret_key="x" * 8 + "abcdefgh" * 5).database_pool_size
        each = int(settings()["CATALOG_WORKERS"]) * (2 * pool + 2)

        # MySQL's default of max_connections, less 10 for other clients.
        assert most * each <= 151 - 10


class TestPods:
    @pytest.mark.parametrize("folder", ALL, ids=name_of)
    def test_pods_meet_the_restricted_standard(self, folder: Path) -> None:
        for pod in pods(applied(folder)):
            spec = pod["spec"]
            assert spec["securityContext"]["runAsNonRoot"] is True
            assert spec["securityContext"]["runAsUser"] > 0
            assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
            assert spec["automountServiceAccountToken"] is False
            # Otherwise a Service called catalog would set CATALOG_PORT and the like.
            assert spec["enableServiceLinks"] is False
            for container in spec["containers"]:
                assert container["securityContext"] == {
                    "allowPrivilegeEscalation": False,
                    "readOnlyRootFilesystem": True,
                    "capabilities": {"drop": ["ALL"]},
                }
                assert "memory" in container["resources"]["limits"]
                assert {"cpu", "memory"} <= set(container["resources"]["requests"])

    @pytest.mark.parametrize("folder", OVERLAYS, ids=name_of)
    def test_containers_have_a_readiness_probe(self, folder: Path) -> None:
        for pod in pods(applied(folder)):
            for container in pod["spec"]["containers"]:
                assert "readinessProbe" in container

    def test_probes_use_the_documented_paths(self) -> None:
        (container,) = app()["containers"]
        (port,) = container["ports"]

        assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
        assert container["livenessProbe"]["httpGet"]["path"] == "/livez"
        assert container["startupProbe"]["httpGet"]["path"] == "/livez"
        assert settings()["CATALOG_BIND"].endswith(f":{port['containerPort']}")

    @pytest.mark.parametrize("folder", ALL, ids=name_of)
    def test_images_are_those_that_the_kustomization_names(self, folder: Path) -> None:
        images = {
            container["image"]
            for pod in pods(applied(folder))
            for container in pod["spec"]["containers"]
        }
        replaced = {image["name"] for image in kustomization(folder).get("images", [])}

        assert replaced <= images
        assert {image for image in images if ":" not in image} == {"catalog"}

    @pytest.mark.parametrize("folder", OVERLAYS, ids=name_of)
    def test_services_target_ports_of_pods(self, folder: Path) -> None:
        found = applied(folder)
        for service in of_kind(found, "Service"):
            selector = service["spec"]["selector"].items()
            (pod,) = [each for each in pods(found) if selector <= _labels(each).items()]
            ports = {port["name"] for each in pod["spec"]["containers"] for port in each["ports"]}
            assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports

    def test_nginx_upstream_names_the_service(self) -> None:
        text = (KUBERNETES / "base" / "nginx" / "upstream.conf").read_text()
        service = named(applied(ALL[0]), "Service", "catalog-app")
        (port,) = service["spec"]["ports"]
        namespace = kustomization(KUBERNETES / "base")["namespace"]
        host = f"{service['metadata']['name']}.{namespace}.svc.cluster.local"

        # As for Compose, except for the resolver and the host name.
        compose = (NGINX / "compose" / "upstream.conf").read_text()
        compose = compose.replace("app:8000", f"{host}:{port['port']}")
        compose = compose.replace("127.0.0.11", "kube-dns.kube-system.svc.cluster.local")
        assert _directives(text) == _directives(compose)

    def test_nginx_listens_on_the_container_port(self) -> None:
        text = (KUBERNETES / "base" / "nginx" / "listen.conf").read_text()
        nginx = named(applied(ALL[0]), "Deployment", "catalog-nginx")
        (container,) = nginx["spec"]["template"]["spec"]["containers"]

        assert re.findall(r"^listen (\d+)", text, re.MULTILINE) == [
            str(port["containerPort"]) for port in container["ports"]
        ]

    def test_roll_outs_keep_all_pods_available(self) -> None:
        for name in ("catalog-app", "catalog-nginx"):
            strategy = named(applied(ALL[0]), "Deployment", name)["spec"]["strategy"]
            assert strategy["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}


class TestNetwork:
    def test_default_policy_denies_all_traffic(self) -> None:
        policy = named(applied(ALL[0]), "NetworkPolicy", "catalog-default-deny")

        assert policy["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}

    def test_only_nginx_and_prometheus_reach_the_service(self) -> None:
        (ingress,) = named(applied(ALL[0]), "NetworkPolicy", "catalog-app")["spec"]["ingress"]
        nginx = named(applied(ALL[0]), "Deployment", "catalog-nginx")["spec"]["template"]

        pod, prometheus = ingress["from"]

        assert pod == {"podSelector": {"matchLabels": _labels(nginx)}}
        assert prometheus["namespaceSelector"]["matchLabels"] == {
            "kubernetes.io/metadata.name": "monitoring"
        }

    @pytest.mark.parametrize("folder", ALL, ids=name_of)
    def test_policies_select_existing_pods(self, folder: Path) -> None:
        everywhere = [_labels(pod) for each in ALL for pod in pods(applied(each))]
        for policy in of_kind(applied(folder), "NetworkPolicy"):
            for labels in _selected(policy["spec"]):
                assert any(labels.items() <= pod.items() for pod in everywhere), labels


def _directives(text: str) -> list[str]:
    """Return the lines of an nginx configuration without comments."""
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    return [line for line in lines if line]


def _labels(pod: Manifest) -> dict[str, str]:
    labels: dict[str, str] = pod["metadata"]["labels"]
    return labels


def _selected(part: Any) -> list[dict[str, str]]:
    """Return the labels of all pod selectors within a policy."""
    if isinstance(part, list):
        return [labels for each in part for labels in _selected(each)]
    if not isinstance(part, dict):
        return []
    own = part.get("podSelector", {}).get("matchLabels")
    inner = [labels for each in part.values() for labels in _selected(each)]
    return [own, *inner] if own else inner
