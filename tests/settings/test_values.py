"""Values of settings that have a notation of their own: addresses, URLs, keys, networks, rates."""

from ipaddress import ip_network
from pathlib import Path

import pytest
from pydantic import SecretStr

from catalog.errors import SettingsInvalid
from catalog.settings import (
    KNOWN_SECRETS,
    Bind,
    Rate,
    load_settings,
    variable_names,
)
from tests.settings.support import MYSQL, STRONG, Load, fault_of


class TestPort:
    def test_assigned_port_is_served_on_all_addresses(self, load: Load) -> None:
        assert load(PORT=" 8298\r").bind == Bind("0.0.0.0", 8298)  # noqa: S104 (compared, not bound)

    def test_address_wins_over_the_assigned_port(self, load: Load) -> None:
        assert load(PORT="8298", CATALOG_BIND="127.0.0.1:81").bind == Bind("127.0.0.1", 81)

    def test_port_of_the_command_line_wins_over_all(self, load: Load) -> None:
        load(PORT="8298", CATALOG_BIND="[::1]:81")

        assert load_settings().with_port(9).bind == Bind("::1", 9)
        assert load_settings(bind="localhost:82").with_port(9).bind == Bind("localhost", 9)

    def test_port_alone_leaves_the_host_as_it_is(self, load: Load) -> None:
        load()

        assert load_settings().with_port(9).bind == Bind("127.0.0.1", 9)

    @pytest.mark.parametrize("port", ["65536", "-1", "http", "8_0", "8000.0", "\uff18"])
    def test_invalid_assigned_port_is_refused(self, load: Load, port: str) -> None:
        assert fault_of(load, PORT=port) == (
            "CATALOG_BIND cannot be taken from PORT, which must be a number from 0 to 65535"
        )

    def test_port_of_a_unix_socket_is_refused(self, load: Load) -> None:
        settings = load(CATALOG_BIND="unix:/run/catalog.sock")

        with pytest.raises(SettingsInvalid, match="a unix socket, which has no port"):
            settings.with_port(9)


class TestDatabaseUrl:
    @pytest.mark.parametrize(
        "scheme",
        ["mysql", "mysql+pymysql", "mysql+aiomysql", "mariadb", "mariadb+aiomysql"],
    )
    def test_every_server_scheme_selects_the_same_driver(self, load: Load, scheme: str) -> None:
        url = load(DATABASE_URL=MYSQL.replace("mysql", scheme, 1)).database_url

        assert url.render_as_string(hide_password=False) == (
            "mysql+aiomysql://catalog:pAssw0rd@db.example:3306/catalog?charset=utf8mb4"
        )

    @pytest.mark.parametrize("scheme", ["sqlite", "sqlite+aiosqlite"])
    def test_sqlite_url_names_a_file(self, load: Load, scheme: str) -> None:
        settings = load(DATABASE_URL=f"{scheme}:////srv/catalog/data.db")

        assert settings.embedded
        assert settings.database_url.drivername == "sqlite+aiosqlite"
        assert settings.data_dir == Path("/srv/catalog")

    @pytest.mark.parametrize(
        "url",
        ["sqlite://", "sqlite:///", "sqlite:///:memory:", "sqlite+aiosqlite:///:memory:"],
    )
    def test_in_memory_database_is_refused(self, load: Load, url: str) -> None:
        assert "cannot share a SQLite database in memory" in fault_of(load, DATABASE_URL=url)

    @pytest.mark.parametrize(
        ("url", "complaint"),
        [
            ("catalog", "is not a URL"),
            ("mysql://user@host:port/catalog", "is not a URL"),
            ("postgresql://db/catalog", "must begin with mysql://"),
            ("mysql+mysqldb://db/catalog", "must begin with mysql://"),
            ("mysql://db", "must name a database"),
            ("mysql://db/", "must name a database"),
            ("mysql://db/catalog?connect_timeout=5", "unknown option"),
            ("mysql://catalog:p%C3%A4ss@db/catalog", "non-ASCII characters"),
            ("sqlite:///catalog.db?mode=memory", "takes no options with SQLite"),
            ("sqlite://relative.db", "has a host"),
        ],
        ids=[
            "no URL",
            "port in words",
            "another database",
            "another driver",
            "no database",
            "empty database",
            "unknown option",
            "password beyond ASCII",
            "options with SQLite",
            "two slashes",
        ],
    )
    def test_unusable_url_is_refused_with_a_reason(
        self, load: Load, url: str, complaint: str
    ) -> None:
        fault = fault_of(load, DATABASE_URL=url)

        assert fault.startswith("DATABASE_URL ")
        assert complaint in fault

    @pytest.mark.parametrize(
        "option",
        ["ssl=true", "ssl_ca=/ca.pem", "ssl-mode=REQUIRED", "SSL_VERIFY_CERT=1", "tls=1"],
    )
    def test_tls_option_is_refused_with_the_settings_to_use(self, load: Load, option: str) -> None:
        fault = fault_of(load, DATABASE_URL=f"{MYSQL}?{option}")

        assert "CATALOG_DATABASE_TLS=verify" in fault
        assert "CATALOG_DATABASE_TLS=/path/ca.pem" in fault

    def test_charset_is_always_utf8mb4(self, load: Load) -> None:
        assert load(DATABASE_URL=MYSQL).database_url.query["charset"] == "utf8mb4"
        assert load(DATABASE_URL=f"{MYSQL}?charset=utf8mb4").database_url.query["charset"] == (
            "utf8mb4"
        )
        assert "charset=utf8mb4" in fault_of(load, DATABASE_URL=f"{MYSQL}?charset=latin1")

    def test_unix_socket_is_accepted(self, load: Load) -> None:
        url = load(
            DATABASE_URL="mysql://catalog@/catalog?unix_socket=/run/mysqld.sock"
        ).database_url

        assert url.query["unix_socket"] == "/run/mysqld.sock"


class TestSigningKey:
    def test_production_does_not_start_without_a_key(self, load: Load) -> None:
        fault = fault_of(load, CATALOG_ENV="production")

        assert fault == (
            "JWT_SECRET_KEY is required in production; generate one with: openssl rand -hex 32"
        )

    def test_production_starts_with_a_strong_key(self, load: Load) -> None:
        settings = load(CATALOG_ENV="production", JWT_SECRET_KEY=STRONG)

        assert settings.jwt_secret_key == SecretStr(STRONG)

    @pytest.mark.parametrize("env", ["development", "production"])
    def test_key_of_fewer_than_32_bytes_is_refused(self, load: Load, env: str) -> None:
        fault = fault_of(load, CATALOG_ENV=env, JWT_SECRET_KEY=STRONG[:31])

        assert fault.startswith("JWT_SECRET_KEY must be at least 32 bytes")

    def test_key_length_is_counted_in_bytes(self, load: Load) -> None:
        key = "Ключ-Подписи-0123"

        assert load(JWT_SECRET_KEY=key + "абв").jwt_secret_key == SecretStr(key + "абв")

    @pytest.mark.parametrize("secret", sorted(KNOWN_SECRETS))
    def test_key_from_a_tutorial_is_refused(self, load: Load, secret: str) -> None:
        fault = fault_of(load, JWT_SECRET_KEY=secret)

        assert fault.startswith("JWT_SECRET_KEY is a known example or too regular")

    @pytest.mark.parametrize(
        "secret",
        [
            "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIE\n-----END PRIVATE KEY-----",
            "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKTd0123456789",
            '{"kty":"oct","k":"AyM1SysPpbyDfgZld3umj1qzKObwVMko"}',
        ],
        ids=["PEM", "SSH", "JWK"],
    )
    def test_key_of_another_kind_is_refused(self, load: Load, secret: str) -> None:
        fault = fault_of(load, JWT_SECRET_KEY=secret)

        assert fault.startswith("JWT_SECRET_KEY must be random text")

    @pytest.mark.parametrize("secret", ["x" * 64, "abc" * 20, "0101" * 16, "1234567" * 9])
    def test_repeating_pattern_is_refused(self, load: Load, secret: str) -> None:
        assert "too regular" in fault_of(load, JWT_SECRET_KEY=secret)


class TestPreviousSecrets:
    OTHER = "t6Zr2KqV8dWx5Ty7NbJm3LcPf9GhQs4A"

    @pytest.mark.parametrize(
        "text",
        [
            "{0},{1}",
            " {0} , {1} ",
            "{0},{1},",
            "{0}\n{1}\n",
            "{0}\r\n\r\n{1}",
        ],
        ids=["commas", "blanks", "one comma more", "lines", "empty lines"],
    )
    def test_keys_are_separated_by_commas_or_lines(
        self, load: Load, tmp_path: Path, text: str
    ) -> None:
        path = tmp_path / "previous"
        path.write_bytes(text.format(STRONG, self.OTHER).encode())

        settings = load(CATALOG_JWT_PREVIOUS_SECRET_KEYS_FILE=str(path))

        assert settings.jwt_previous_secret_keys == (SecretStr(STRONG), SecretStr(self.OTHER))

    def test_default_is_no_previous_key(self, load: Load) -> None:
        assert load(CATALOG_JWT_PREVIOUS_SECRET_KEYS=" , ").jwt_previous_secret_keys == ()

    def test_weak_previous_key_is_refused(self, load: Load) -> None:
        for weak in (STRONG[:31], "x" * 64, min(KNOWN_SECRETS)):
            fault = fault_of(load, CATALOG_JWT_PREVIOUS_SECRET_KEYS=f"{STRONG},{weak}")

            assert fault.startswith("CATALOG_JWT_PREVIOUS_SECRET_KEYS has a key (number 2) that ")
            assert weak not in fault
            assert STRONG not in fault


class TestBind:
    @pytest.mark.parametrize(
        ("text", "bind", "url"),
        [
            ("127.0.0.1:8000", Bind("127.0.0.1", 8000), "http://127.0.0.1:8000"),
            ("0.0.0.0:80", Bind("0.0.0.0", 80), "http://127.0.0.1:80"),  # noqa: S104 (compared, not bound)
            ("localhost:0", Bind("localhost", 0), "http://localhost:0"),
            ("[::1]:65535", Bind("::1", 65535), "http://[::1]:65535"),
            ("[::]:8000", Bind("::", 8000), "http://[::1]:8000"),
            (
                "unix:/run/catalog.sock",
                Bind(path=Path("/run/catalog.sock")),
                "unix:/run/catalog.sock",
            ),
        ],
        ids=["IPv4", "any IPv4", "name", "IPv6", "any IPv6", "socket"],
    )
    def test_host_socket_and_ipv6_forms_are_accepted(
        self, load: Load, text: str, bind: Bind, url: str
    ) -> None:
        parsed = load(CATALOG_BIND=text).bind

        assert parsed == bind
        assert parsed.url == url

    @pytest.mark.parametrize(
        "text",
        [
            "8000",
            ":8000",
            "localhost",
            "localhost:",
            "localhost:http",
            "localhost:-1",
            "localhost:65536",
            "localhost:8_000",
            "localhost:\uff18\uff10",
            "unix:relative.sock",
            "unix:",
        ],
    )
    def test_other_form_is_refused(self, load: Load, text: str) -> None:
        assert fault_of(load, CATALOG_BIND=text).startswith("CATALOG_BIND ")


class TestTrustedProxies:
    def test_networks_and_addresses_are_separated_by_commas(self, load: Load) -> None:
        settings = load(CATALOG_TRUSTED_PROXIES="10.0.0.0/8, 192.0.2.7,::1")

        assert settings.trusted_proxies == (
            ip_network("10.0.0.0/8"),
            ip_network("192.0.2.7/32"),
            ip_network("::1/128"),
        )

    def test_default_trusts_no_proxy(self, load: Load) -> None:
        assert load().trusted_proxies == ()

    @pytest.mark.parametrize("text", ["*", "proxy", "10.0.0.1/8", "10.0.0.0/33", "10.0.0.1,,::1"])
    def test_invalid_network_is_refused(self, load: Load, text: str) -> None:
        assert fault_of(load, CATALOG_TRUSTED_PROXIES=text).startswith("CATALOG_TRUSTED_PROXIES ")


class TestRootPath:
    @pytest.mark.parametrize("text", ["/shop", "/a/b", "/a.b-c_d~e", "/apis", "/v1/api"])
    def test_path_is_taken(self, load: Load, text: str) -> None:
        assert load(CATALOG_ROOT_PATH=text).root_path == text

    def test_default_is_the_root(self, load: Load) -> None:
        assert load().root_path == ""

    @pytest.mark.parametrize(
        "text",
        ["/", "shop", "/shop/", "//shop", "/a//b", "/a/../b", "/.", "/a b", "/a?b", "/%41", "/ä"],
    )
    def test_other_text_is_refused(self, load: Load, text: str) -> None:
        told = fault_of(load, CATALOG_ROOT_PATH=text)

        assert told == "CATALOG_ROOT_PATH must be a path such as /shop, without a slash at the end"

    @pytest.mark.parametrize("text", ["/api", "/api/v1", "/api/"])
    def test_path_that_begins_with_the_services_own_is_refused(self, load: Load, text: str) -> None:
        assert "must not begin with /api" in fault_of(load, CATALOG_ROOT_PATH=text)


class TestCorsOrigins:
    @pytest.mark.parametrize(
        ("text", "origins"),
        [
            ("https://app.example.com", ("https://app.example.com",)),
            (
                "http://localhost:3000, https://a-b.example",
                ("http://localhost:3000", "https://a-b.example"),
            ),
            ("http://a.example,http://a.example", ("http://a.example",)),
            ("http://[::1]:3000,http://192.0.2.7", ("http://[::1]:3000", "http://192.0.2.7")),
            ("https://a.example:80", ("https://a.example:80",)),
            ("https://xn--bcher-kva.example", ("https://xn--bcher-kva.example",)),
            ("capacitor://localhost", ("capacitor://localhost",)),
            ("*", ("*",)),
        ],
    )
    def test_origins_are_separated_by_commas(
        self, load: Load, text: str, origins: tuple[str, ...]
    ) -> None:
        assert load(CATALOG_CORS_ORIGINS=text).cors_origins == origins

    def test_default_admits_no_origin(self, load: Load) -> None:
        assert load().cors_origins == ()

    @pytest.mark.parametrize(
        ("text", "fault"),
        [
            ("https://a.example/", "is not an origin"),
            ("https://a.example/app", "is not an origin"),
            ("https://a.example?x", "is not an origin"),
            ("https://user@a.example", "is not an origin"),
            ("https://A.example", "is not an origin"),
            ("https://bücher.example", "is not an origin"),
            ("https://a example", "is not an origin"),
            ('https://a.example"', "is not an origin"),
            ("https://a.example;https://b.example", "is not an origin"),
            ("a.example", "is not an origin"),
            ("//a.example", "is not an origin"),
            ("https://", "is not an origin"),
            ("https://a.example:", "is not an origin"),
            ("https://a.example:0", "is not an origin"),
            ("https://a.example:65536", "has an invalid address or port"),
            ("http://[::g]", "is not an origin"),
            ("http://[1::2::3]", "has an invalid address or port"),
            ("https://a.example:443", "names the port 443"),
            ("http://a.example:80", "names the port 80"),
            ("https://*.example.com", "has a wildcard"),
            ("*,https://a.example", "must be alone"),
            ("*,*,https://a.example", "must be alone"),
            ("null", "is null"),
            ("https://a.example,", "(number 2) that is empty"),
        ],
    )
    def test_other_entry_is_refused_with_its_number(
        self, load: Load, text: str, fault: str
    ) -> None:
        told = fault_of(load, CATALOG_CORS_ORIGINS=text)

        assert told.startswith("CATALOG_CORS_ORIGINS has an entry (number ")
        assert fault in told


LIMITS = ("signup_limit", "login_limit", "read_limit", "write_limit")


class TestLimits:
    @pytest.mark.parametrize("field", LIMITS)
    @pytest.mark.parametrize(
        ("text", "rate"),
        [
            ("1/second", Rate(1, 1)),
            ("600/minute", Rate(600, 60)),
            ("5/hour", Rate(5, 3600)),
            ("1000000/day", Rate(1_000_000, 86400)),
            ("off", None),
        ],
    )
    def test_rate_is_parsed(self, load: Load, field: str, text: str, rate: Rate | None) -> None:
        assert getattr(load(**{variable_names()[field]: text}), field) == rate

    @pytest.mark.parametrize(
        "text",
        [
            *("0/minute", "1000001/minute", "-1/minute", "1.5/minute", "1_0/minute", "+1/minute"),
            *("600", "/minute", "600/", "600/minutes", "600/ minute", "600 per minute", "600/week"),
            *("OFF", "none", "600/minute;5/second", "9" * 5000 + "/minute", "\uff15/minute"),
        ],
    )
    def test_invalid_rate_is_refused(self, load: Load, text: str) -> None:
        assert fault_of(load, CATALOG_LOGIN_LIMIT=text).startswith("CATALOG_LOGIN_LIMIT must ")

    @pytest.mark.parametrize(
        ("given", "url"),
        [
            ("redis://127.0.0.1", "redis://127.0.0.1"),
            ("redis://:pAss%2Fw0rd@cache:6379/0", "redis://:pAss%2Fw0rd@cache:6379/0"),
            (
                "rediss://user:pAss@[2001:db8::1]:6380/15",
                "rediss://user:pAss@[2001:db8::1]:6380/15",
            ),
            ("valkey://cache/", "redis://cache/"),
            ("valkeys://cache:6380", "rediss://cache:6380"),
        ],
    )
    def test_store_url_is_redis_or_valkey(self, load: Load, given: str, url: str) -> None:
        assert load(CATALOG_LIMITS_URL=given).limits_url == SecretStr(url)

    @pytest.mark.parametrize(
        ("url", "complaint"),
        [
            ("cache:6379", "must begin with redis://"),
            ("memcached://cache", "must begin with redis://"),
            ("unix:///run/redis.sock", "must begin with redis://"),
            ("redis://", "is not a URL"),
            ("redis://:Geheim@", "is not a URL"),
            ("redis://:Geh/eim@cache", "is not a URL"),
            ("redis://cache:port", "is not a URL"),
            ("redis://cache:0", "is not a URL"),
            ("redis://cache:70000", "is not a URL"),
            ("redis://:Geheim@cache/first", "by its number"),
            ("redis://:Geheim@cache/0/1", "by its number"),
            ("redis://:Geheim@cache?ssl_cert_reqs=none", "takes no options"),
            ("redis://:Ge#heim@cache", "is not a URL"),
        ],
    )
    def test_invalid_store_url_is_refused_without_repeating_it(
        self, load: Load, url: str, complaint: str
    ) -> None:
        fault = fault_of(load, CATALOG_LIMITS_URL=url)

        assert fault.startswith("CATALOG_LIMITS_URL ")
        assert complaint in fault
        assert "eim" not in fault

    def test_password_of_the_store_is_not_shown(self, load: Load) -> None:
        settings = load(CATALOG_LIMITS_URL="redis://:Geheim@cache")

        assert "Geheim" not in f"{settings!r}{settings}"

    def test_store_url_is_read_from_a_file(self, load: Load, tmp_path: Path) -> None:
        (tmp_path / "url").write_text("redis://:Geheim@cache\n")

        settings = load(CATALOG_LIMITS_URL_FILE=str(tmp_path / "url"))
        fault = fault_of(load, CATALOG_LIMITS_URL_FILE=str(tmp_path / "missing"))

        assert settings.limits_url == SecretStr("redis://:Geheim@cache")
        assert fault == (
            "CATALOG_LIMITS_URL cannot be read from CATALOG_LIMITS_URL_FILE:"
            " No such file or directory"
        )
