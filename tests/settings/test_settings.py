"""Settings: their sources, defaults, bounds and faults."""

import ast
import os
import re
from datetime import timedelta
from inspect import getsource
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import SecretStr

from catalog.auth.passwords.hashing import MAX_QUEUED, PASSES
from catalog.auth.tokens.revocations import POLL_SECONDS
from catalog.auth.tokens.sessions import SESSION_FACTOR, SESSIONS_PER_ACCOUNT
from catalog.bootstrap import DATABASE_START_SECONDS
from catalog.db.deadlines import DEADLINES
from catalog.http.limits import FIXED_RATES
from catalog.http.middleware.concurrency_limit import MAX_READS
from catalog.http.middleware.request_body import BODY_SECONDS, MAX_BODY_BYTES
from catalog.http.response_buffers import MAX_BUFFERED_BYTES
from catalog.http.response_buffers import STALL_SECONDS as RESPONSE_STALL_SECONDS
from catalog.products.changes import change_log
from catalog.products.idempotency import RETENTION
from catalog.server import sockets
from catalog.server.worker_protocol import GRACEFUL_SECONDS, START_LIMIT_SECONDS
from catalog.settings import (
    CONSTANTS,
    REMOVED,
    SECRET_FIELDS,
    Bind,
    Settings,
    SharedMetrics,
    build_commit,
    environment_of_worker,
    load_settings,
    parse_database_url,
    shared_metrics,
    unknown_variables,
    variable_names,
)
from tests.settings.support import MYSQL, STRONG, Load, fault_of, faults_of


class TestDefaults:
    def test_development_needs_no_settings(self, load: Load) -> None:
        settings = load()

        assert settings.env == "development"
        assert settings.embedded
        assert settings.jwt_secret_key is None
        assert settings.bind == Bind("127.0.0.1", 8000)

    def test_empty_variable_counts_as_absent(self, load: Load) -> None:
        settings = load(DATABASE_URL="", JWT_SECRET_KEY="", CATALOG_WORKERS="", CATALOG_BIND="")

        assert settings == load_settings()
        assert settings.embedded

    def test_default_is_one_worker_for_each_usable_core(self, load: Load) -> None:
        assert load().workers == len(os.sched_getaffinity(0))

    def test_settings_are_frozen(self, load: Load) -> None:
        settings = load()

        with pytest.raises(ValueError, match="frozen"):
            settings.workers = 3  # type: ignore[misc]  # what is tested

    def test_every_setting_has_a_variable_and_a_description(self) -> None:
        (defined,) = ast.parse(getsource(Settings)).body
        assert isinstance(defined, ast.ClassDef)
        described = {
            statement.target.id
            for statement, after in pairwise(defined.body)
            if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name)
            if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
        }

        for field, variable in variable_names().items():
            assert re.fullmatch(r"(DATABASE_URL|JWT_SECRET_KEY|(ADMIN|CATALOG)_[A-Z_]+)", variable)
            assert field in described, field


class TestNumber:
    def test_settings_are_thirty_at_most(self) -> None:
        assert len(Settings.model_fields) <= 30


class TestFaults:
    def test_all_faults_are_reported_at_once_with_their_variables(self, load: Load) -> None:
        faults = faults_of(
            load,
            CATALOG_ENV="production",
            DATABASE_URL="postgresql://db/catalog",
            CATALOG_BIND="8000",
            CATALOG_WORKERS="0",
            CATALOG_LOG_LEVEL="loud",
            CATALOG_ACCESS_TOKEN_TTL="soon",
            CATALOG_TRUSTED_PROXIES="everyone",
        )

        assert {fault.split()[0] for fault in faults} == {
            "DATABASE_URL",
            "JWT_SECRET_KEY",
            "CATALOG_BIND",
            "CATALOG_WORKERS",
            "CATALOG_LOG_LEVEL",
            "CATALOG_ACCESS_TOKEN_TTL",
            "CATALOG_TRUSTED_PROXIES",
        }

    def test_command_line_overrides_the_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("CATALOG_WORKERS", "2")
        monkeypatch.setenv("CATALOG_BIND", "0.0.0.0:80")

        settings = load_settings(workers=3, bind=None)

        assert settings.workers == 3
        assert settings.bind == Bind("0.0.0.0", 80)  # noqa: S104 (compared, not bound)

    def test_misspelt_variable_is_reported(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("CATALOG_WORKRES", "2")
        monkeypatch.setenv("CATALOG_WORKERS", "2")
        monkeypatch.setenv("CATALOG_SERVICE_HOST", "10.0.0.7")  # From Kubernetes.
        monkeypatch.setenv("CATALOG_PORT_8000_TCP", "tcp://10.0.0.7:8000")  # The same.

        assert unknown_variables() == ["CATALOG_WORKRES"]


# What each former setting is now, in the unit of its variable.
VALUES: dict[str, float] = {
    "CATALOG_BODY_TIMEOUT": BODY_SECONDS,
    "CATALOG_CHANGE_RETENTION": change_log.RETENTION.total_seconds(),
    "CATALOG_DATABASE_CONNECT_TIMEOUT": DEADLINES.connect,
    "CATALOG_DATABASE_POOL_TIMEOUT": DEADLINES.checkout,
    "CATALOG_DATABASE_READ_TIMEOUT": DEADLINES.read,
    "CATALOG_DATABASE_START_TIMEOUT": DATABASE_START_SECONDS,
    "CATALOG_DATABASE_TIMEOUT": DEADLINES.write,
    "CATALOG_GRACEFUL_TIMEOUT": GRACEFUL_SECONDS,
    "CATALOG_IDEMPOTENCY_RETENTION": RETENTION.total_seconds(),
    "CATALOG_MAX_BODY_BYTES": MAX_BODY_BYTES,
    "CATALOG_MAX_REQUESTS": MAX_READS,
    "CATALOG_PASSWORD_PASSES": PASSES,
    "CATALOG_PASSWORD_QUEUE": MAX_QUEUED,
    "CATALOG_REFRESH_LIMIT": getattr(FIXED_RATES["refresh"], "requests", 0),
    "CATALOG_RESPONSE_BUFFER_BYTES": MAX_BUFFERED_BYTES,
    "CATALOG_RESPONSE_TIMEOUT": RESPONSE_STALL_SECONDS,
    "CATALOG_REVOCATION_INTERVAL": POLL_SECONDS,
    "CATALOG_SESSIONS_PER_ACCOUNT": SESSIONS_PER_ACCOUNT,
    "CATALOG_SESSION_TTL": SESSION_FACTOR,
}


class TestRemovedSettings:
    def test_every_removed_setting_is_refused_at_once_with_other_faults(self, load: Load) -> None:
        faults = faults_of(load, **dict.fromkeys(REMOVED, "1"), CATALOG_WORKERS="0")

        assert len(faults) == len(REMOVED) + 1
        assert {fault.split()[0] for fault in faults} == {*REMOVED, "CATALOG_WORKERS"}

    def test_fault_names_the_variable_and_its_constant(self, load: Load) -> None:
        fault = fault_of(load, CATALOG_BODY_TIMEOUT="60")

        assert fault == "CATALOG_BODY_TIMEOUT is no longer a setting: it is 10 seconds always"

    def test_fault_of_a_replaced_setting_says_what_to_do(self, load: Load) -> None:
        fault = fault_of(load, CATALOG_DATABASE_TLS_CA="/etc/ca.pem")

        assert fault == (
            "CATALOG_DATABASE_TLS_CA is no longer a setting: "
            "set CATALOG_DATABASE_TLS to the path of the file"
        )

    def test_empty_removed_setting_counts_as_absent(self, load: Load) -> None:
        assert load(**dict.fromkeys(REMOVED, "")) == load_settings()

    def test_removed_setting_is_refused_and_not_only_reported_as_unknown(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("CATALOG_BODY_TIMEOUT", "60")

        assert unknown_variables() == []

    def test_stated_values_are_the_constants(self) -> None:
        stated = {name: float(value.split()[0]) for name, value in CONSTANTS.items()}

        assert stated == VALUES

    def test_no_removed_setting_is_a_setting(self) -> None:
        assert not REMOVED.keys() & set(variable_names().values())


class TestConstants:
    def test_kernel_drops_stalled_clients_after_the_workers_do(self) -> None:
        assert sockets.STALL_SECONDS > RESPONSE_STALL_SECONDS

    def test_worker_may_wait_for_the_database_and_for_another_instance(self) -> None:
        assert START_LIMIT_SECONDS >= DATABASE_START_SECONDS + 60


class TestSecrecy:
    def test_message_does_not_repeat_a_secret(self, load: Load) -> None:
        faults = faults_of(
            load,
            DATABASE_URL="mysql://catalog:pAssw0rd@db.example/catalog?sslmode=pAssw0rd",
            JWT_SECRET_KEY="shortSecret",
            CATALOG_BIND="nowhere",
        )

        assert len(faults) == 3
        assert "pAssw0rd" not in "".join(faults)
        assert "shortSecret" not in "".join(faults)

    @pytest.mark.parametrize(
        "url",
        [
            "mysql://catalog:p@Geheim@db.example/catalog",
            "mysql://catalog:p@Geheim/x@db.example/catalog",
            "mysql://catalog:p@x/Geheim@db.example/catalog",
            "mysql://catalog:p@x?Geheim=1@db.example/catalog",
            "mysql://cat/alog:Geheim@db.example/catalog",
        ],
    )
    def test_url_that_shows_a_part_of_the_password_as_host_is_refused(
        self, load: Load, url: str
    ) -> None:
        fault = fault_of(load, DATABASE_URL=url)

        assert fault.startswith("DATABASE_URL is ambiguous; percent-encode special characters")
        assert "Geheim" not in fault

    @example(before="p@x?", ssl="", after="=1")
    @example(before="p@x?", ssl="ssl", after="=1")
    @given(
        before=st.text("@:/?#[]&=%+ ;xyz", max_size=6),
        after=st.text("@:/?#[]&=%+ ;xyz", max_size=6),
        ssl=st.sampled_from(["", "ssl", "tls"]),
    )
    def test_message_does_not_repeat_an_unencoded_password(
        self, before: str, after: str, ssl: str
    ) -> None:
        url = f"mysql://catalog:{before}{ssl}Geheim{after}@db.example/catalog"

        try:
            parsed = parse_database_url(url)
        except ValueError as error:
            assert "Geheim" not in str(error)  # noqa: PT017 (most of the URLs are valid)
        else:
            # Messages of the driver name the host, and the log the database.
            assert "Geheim" not in f"{parsed.username}{parsed.host}{parsed.port}{parsed.database}"

    def test_repr_of_settings_shows_no_secret(self, load: Load) -> None:
        settings = load(
            DATABASE_URL=MYSQL,
            JWT_SECRET_KEY=STRONG,
            CATALOG_JWT_PREVIOUS_SECRET_KEYS=STRONG[::-1],
            CATALOG_JWT_PRIVATE_KEY="MC4CAQAwBQYDK2VwBCIE",
            CATALOG_JWT_PREVIOUS_PUBLIC_KEYS="MC4CAQAwBQYDK2VwBCIE",
            ADMIN_PASSWORD="Lampe17!",
        )

        for shown in (repr(settings), str(settings), f"{settings:}"):
            assert "pAssw0rd" not in shown
            assert STRONG not in shown
            assert STRONG[::-1] not in shown
            assert "MC4CAQ" not in shown
            assert "Lampe17!" not in shown


class TestSecretFiles:
    @pytest.mark.parametrize("ending", ["", "\n", "\r\n"], ids=["bare", "newline", "crlf"])
    def test_secret_is_read_from_a_file_without_its_last_newline(
        self, load: Load, tmp_path: Path, ending: str
    ) -> None:
        files = {"DATABASE_URL": MYSQL, "JWT_SECRET_KEY": STRONG, "ADMIN_PASSWORD": "two words"}
        for name, value in files.items():
            (tmp_path / name).write_bytes((value + ending).encode())

        settings = load(**{f"{name}_FILE": str(tmp_path / name) for name in files})

        assert settings.database_url.password == "pAssw0rd"
        assert settings.jwt_secret_key == SecretStr(STRONG)
        assert settings.admin_password == SecretStr("two words")

    @pytest.mark.parametrize("name", [variable_names()[field] for field in SECRET_FIELDS])
    def test_unreadable_file_is_a_fault(self, load: Load, tmp_path: Path, name: str) -> None:
        missing = fault_of(load, **{f"{name}_FILE": str(tmp_path / "missing")})
        (tmp_path / "binary").write_bytes(b"\xff\xfe")
        binary = fault_of(load, **{f"{name}_FILE": str(tmp_path / "binary")})

        assert missing == f"{name} cannot be read from {name}_FILE: No such file or directory"
        assert binary == f"{name} cannot be read from {name}_FILE: not UTF-8"

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("DATABASE_URL", MYSQL),
            ("JWT_SECRET_KEY", STRONG),
            ("CATALOG_JWT_PREVIOUS_SECRET_KEYS", STRONG),
            ("CATALOG_JWT_PRIVATE_KEY", "-----BEGIN PRIVATE KEY-----"),
            ("CATALOG_JWT_PREVIOUS_PUBLIC_KEYS", "-----BEGIN PUBLIC KEY-----"),
            ("ADMIN_PASSWORD", "Lampe17!"),
        ],
        ids=lambda text: text if text.isupper() and "-" not in text else "",
    )
    def test_variable_and_file_together_are_a_fault(
        self, load: Load, tmp_path: Path, name: str, value: str
    ) -> None:
        (tmp_path / name).write_text(value)

        fault = fault_of(load, **{name: value, f"{name}_FILE": str(tmp_path / name)})

        assert fault == f"{name} and {name}_FILE are both set; keep one"

    def test_value_from_a_file_is_checked_like_a_variable(self, load: Load, tmp_path: Path) -> None:
        (tmp_path / "key").write_text("short\n")

        fault = fault_of(load, JWT_SECRET_KEY_FILE=str(tmp_path / "key"))

        assert fault.startswith("JWT_SECRET_KEY must be at least 32 bytes")

    def test_empty_file_gives_no_secret(self, load: Load, tmp_path: Path) -> None:
        (tmp_path / "key").write_text("\n")

        fault = fault_of(load, CATALOG_ENV="production", JWT_SECRET_KEY_FILE=str(tmp_path / "key"))

        assert fault.startswith("JWT_SECRET_KEY is required in production")


# Values as files with CRLF, editors and copied text leave them.
SURROUNDINGS = ["{}\r", "{}\n", " {}", "{}\t", "\ufeff{}", "\r\n {} \r\n", "\u00a0{}"]


class TestSurroundings:
    @pytest.mark.parametrize("around", SURROUNDINGS, ids=ascii)
    def test_blanks_and_line_ends_are_no_part_of_a_setting(self, load: Load, around: str) -> None:
        environment = {
            "DATABASE_URL": "sqlite:////srv/shop.db",
            "CATALOG_ENV": "production",
            "CATALOG_JWT_PREVIOUS_SECRET_KEYS": STRONG,
            "CATALOG_BIND": "127.0.0.1:81",
            "CATALOG_WORKERS": "3",
            "CATALOG_LOG_LEVEL": "debug",
            "CATALOG_LOGIN_LIMIT": "5/hour",
            "CATALOG_LIMITS_URL": "redis://:Geheim@cache",
            "ADMIN_USERNAME": "ada",
        }

        plain = load(JWT_SECRET_KEY=STRONG, **environment)
        surrounded = load(
            JWT_SECRET_KEY=STRONG,
            **{name: around.format(value) for name, value in environment.items()},
        )

        assert surrounded == plain
        assert surrounded.database_url.database == "/srv/shop.db"

    @pytest.mark.parametrize("around", SURROUNDINGS, ids=ascii)
    def test_file_is_cleaned_like_a_variable(self, load: Load, tmp_path: Path, around: str) -> None:
        (tmp_path / "url").write_text(around.format(MYSQL), newline="")

        url = load(DATABASE_URL_FILE=f" {tmp_path / 'url'}\r").database_url

        assert url.query == {"charset": "utf8mb4"}
        assert url.database == "catalog"

    @pytest.mark.parametrize("name", ["JWT_SECRET_KEY", "ADMIN_PASSWORD"])
    def test_blank_at_an_end_of_a_secret_is_refused(
        self, load: Load, tmp_path: Path, name: str
    ) -> None:
        (tmp_path / "file").write_text(f" {STRONG}\n")

        faults = [
            fault_of(load, **{name: f"{STRONG} \r\n"}),
            fault_of(load, **{name: "", f"{name}_FILE": str(tmp_path / "file")}),
        ]

        assert faults == [f"{name} begins or ends with a blank; remove it"] * 2

    @pytest.mark.parametrize("end", ["\r", "\n", "\r\n"], ids=ascii)
    def test_line_end_is_no_part_of_a_secret(self, load: Load, end: str) -> None:
        settings = load(JWT_SECRET_KEY=STRONG + end, ADMIN_PASSWORD="Lampe17!" + end)

        assert settings.jwt_secret_key == SecretStr(STRONG)
        assert settings.admin_password == SecretStr("Lampe17!")

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("DATABASE_URL", "sqlite:////srv/sh\rop.db"),
            ("DATABASE_URL", "sqlite:////srv/shop.db\nCATALOG_WORKERS=3"),
            ("CATALOG_LIMITS_URL", "redis://:Geheim@ca\x7fche"),
            ("CATALOG_WORKERS", "1\n2"),
            ("ADMIN_USERNAME", "a\x1bda"),
        ],
        ids=ascii,
    )
    def test_control_character_inside_is_refused(self, load: Load, name: str, value: str) -> None:
        fault = fault_of(load, **{name: value})

        assert fault == f"{name} contains a line break or another control character"

    @pytest.mark.parametrize("blank", [" ", "\r", "\t\n", "\ufeff"], ids=ascii)
    def test_blank_value_counts_as_absent(self, load: Load, blank: str) -> None:
        names = [*variable_names().values(), "PORT"]

        assert load(**dict.fromkeys(names, blank)) == load_settings()
        assert load().workers == len(os.sched_getaffinity(0))


# Each setting with bounds: the smallest and the largest value, and values just beyond.
BOUNDS = {
    "workers": ("1", "256", "0", "257"),
    "drain_delay": ("0", "300", "-0.1", "300.1"),
    "database_pool_size": ("1", "256", "0", "257"),
    "access_token_ttl": ("1", "31622400", "0.9", "31622401"),
    "refresh_token_ttl": ("1", "31622400", "0.9", "31622401"),
    "password_min_length": ("8", "128", "7", "129"),
    "password_memory_kib": ("19456", "4194304", "19455", "4194305"),
}


def value_of(settings: Settings, field: str) -> float:
    value: Any = getattr(settings, field)
    return value.total_seconds() if isinstance(value, timedelta) else float(value)


class TestBounds:
    @pytest.mark.parametrize("field", BOUNDS)
    def test_bounds_are_inclusive(self, load: Load, field: str) -> None:
        for value in BOUNDS[field][:2]:
            assert value_of(load(**{variable_names()[field]: value}), field) == float(value)

    @pytest.mark.parametrize("field", BOUNDS)
    def test_values_beyond_the_bounds_and_non_numbers_are_refused(
        self, load: Load, field: str
    ) -> None:
        variable = variable_names()[field]

        for value in (*BOUNDS[field][2:], "nan", "inf", "-inf", "many", "1e999"):
            assert fault_of(load, **{variable: value}).startswith(f"{variable} "), value

    def test_every_number_has_bounds(self) -> None:
        numbers = {
            name
            for name, field in Settings.model_fields.items()
            if field.annotation in {int, float, timedelta}
        }

        assert numbers == BOUNDS.keys()

    @pytest.mark.parametrize(
        ("variable", "value"),
        [
            ("CATALOG_ENV", "prod"),
            ("CATALOG_DATABASE_TLS", "yes"),
            ("CATALOG_DATABASE_TLS", "/nonexistent/ca.pem"),
            ("CATALOG_DATABASE_TLS", "/" + "a" * 5000),
            ("CATALOG_DATABASE_TLS", "/dev/null"),
            ("CATALOG_LOG_LEVEL", "INFO"),
            ("CATALOG_ACCESS_LOG", "some"),
            ("CATALOG_TRACING", "on"),
        ],
    )
    def test_invalid_choice_is_refused(self, load: Load, variable: str, value: str) -> None:
        assert fault_of(load, **{variable: value}).startswith(f"{variable} ")


class TestBuildCommit:
    @pytest.mark.parametrize(
        ("given", "commit"),
        [
            ("3f9c0ffe" * 5, "3f9c0ffe" * 5),
            ("v1.2-3+dirty", "v1.2-3+dirty"),
            *(("", "unknown"), ("a b", "unknown"), ("0" * 65, "unknown")),
        ],
        ids=["hash", "version", "empty", "blank", "too long"],
    )
    def test_commit_is_that_of_the_image_if_it_is_a_plain_word(
        self, monkeypatch: pytest.MonkeyPatch, given: str, commit: str
    ) -> None:
        monkeypatch.setenv("CATALOG_COMMIT", given)

        assert build_commit() == commit
        assert unknown_variables() == []


class TestSharedMetrics:
    PLACE = SharedMetrics(Path("/dev/shm/catalog-metrics-x"), "3")  # noqa: S108 (nothing is there)

    def test_worker_reads_the_place_set_by_its_supervisor(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name, value in environment_of_worker(self.PLACE).items():
            monkeypatch.setenv(name, value)

        assert shared_metrics() == self.PLACE

    def test_variables_of_others_are_ignored(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", "/nonexistent")

        assert shared_metrics() is None
        assert "PROMETHEUS_MULTIPROC_DIR" not in environment_of_worker(None)
        assert environment_of_worker(None)["PATH"]
