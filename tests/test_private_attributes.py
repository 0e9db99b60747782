"""Private attributes of libraries: each is used in one module, and has not changed since.

A release of a library may change them without notice. When a test fails after an update, compare
the module with the new release, and change the version or the signature here.
"""

import ast
import inspect
import pkgutil
import tomllib
from collections.abc import Iterator
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from types import FunctionType
from typing import Any, NamedTuple

import aiomysql
import aiosqlite
import h11
import pytest
from h11._readers import ChunkedReader
from hypercorn.asyncio.tcp_server import TCPServer
from hypercorn.protocol.h11 import H11Protocol
from packaging.requirements import Requirement
from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.mmap_dict import MmapedDict
from quart import Quart, g
from quart_jwt_extended import JWTManager, get_raw_jwt, get_raw_jwt_header
from quart_schema import OpenAPIProvider, QuartSchema
from sqlalchemy import Connection

import catalog

ROOT = Path(catalog.__file__).parent


class Use(NamedTuple):
    """Use of a library's private attributes by one module.

    Attributes:
        package: name of its distribution.
        version: the release that the module was written for; its bug fixes are let through.
        module: path in the package.
        names: attributes that the module reads or overrides.
    """

    package: str
    version: str
    module: str
    names: str


USES = (
    Use(
        *("aiomysql", "0.3", "db/engines/mysql_connection.py"),
        "_close_reason _connect _ensure_alive _execute_command _read_ok_packet _read_query_result "
        "_reader _write_bytes _writer",
    ),
    Use("aiosqlite", "0.22", "db/engines/sqlite.py", "_running _thread"),
    Use(
        *("hypercorn", "0.18", "fastpath/connection.py"),
        "_idle_timeout _initiate_server_close _read_data",
    ),
    Use(
        *("hypercorn", "0.18", "fastpath/http1.py"),
        "_create_stream _handle_events _send_error_response _send_h11_event",
    ),
    # h11 keeps no connection of HTTP/1.0 open, ignores no empty line, and has no option for either.
    Use("h11", "0.16", "fastpath/http1.py", "_cstate _receive_buffer"),
    # h11 bounds a head and trailers only while they are incomplete.
    Use("h11", "0.16", "fastpath/trailers.py", "_reader _readers _reading_trailer"),
    Use(
        *("prometheus-client", "0.26", "observability/shared_values.py"),
        "_buckets _m _positions _sum _upper_bounds _value",
    ),
    # The library stores the claims there for its own functions, and has no other way to do it.
    Use(
        "quart-jwt-extended", "0.1", "auth/guards.py", "_jwt_extended_jwt _jwt_extended_jwt_header"
    ),
    Use(
        *("quart-jwt-extended", "0.1", "auth/tokens/jwt.py"),
        "_create_access_token _create_refresh_token",
    ),
    Use("quart-schema", "0.25", "http/openapi/provider.py", "_app"),
    Use("sqlalchemy", "2.1", "db/raw_rows.py", "_handle_dbapi_exception"),
)

DOCUMENTED = {"_asdict", "_exit", "_fields", "_make", "_mapping", "_replace"}
"""Public in spite of their names: those of named tuples, ``Row._mapping`` and ``os._exit``."""

SIGNATURES = (
    (aiomysql.Connection._connect, "(self)"),
    (aiomysql.Connection._ensure_alive, "(self)"),
    (aiomysql.Connection._execute_command, "(self, command, sql)"),
    (aiomysql.Connection._read_ok_packet, "(self)"),
    (aiomysql.Connection._read_query_result, "(self, unbuffered)"),
    (aiomysql.Connection._write_bytes, "(self, data)"),
    (H11Protocol._create_stream, "(self, request)"),
    (H11Protocol._handle_events, "(self)"),
    (H11Protocol._send_error_response, "(self, status_code)"),
    (H11Protocol._send_h11_event, "(self, event)"),
    (TCPServer._idle_timeout, "(self)"),
    (TCPServer._initiate_server_close, "(self)"),
    (TCPServer._read_data, "(self)"),
    (
        JWTManager._create_access_token,
        "(self, identity, fresh, expires_delta, user_claims, headers)",
    ),
    (JWTManager._create_refresh_token, "(self, identity, expires_delta, user_claims, headers)"),
    (
        Connection._handle_dbapi_exception,
        "(self, e, statement, parameters, cursor, context, is_sub_exec)",
    ),
)


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name not in DOCUMENTED


def defined_in(tree: ast.Module) -> set[str]:
    """Return the names that a module defines, as functions, classes or attributes."""
    names = set()
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                names.add(node.name)
            case ast.Name(ctx=ast.Store()):
                names.add(node.id)
            case ast.Attribute(value=ast.Name(id="self"), ctx=ast.Store()):
                names.add(node.attr)
    return names


def foreign_reads() -> Iterator[tuple[str, str]]:
    """Yield each module with the private attributes and modules it uses and does not define."""
    for path in ROOT.rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        own = defined_in(tree)
        for node in ast.walk(tree):
            match node:
                case ast.Attribute(attr=name) if is_private(name) and name not in own:
                    yield str(path.relative_to(ROOT)), name
                case ast.Import(names=names) | ast.ImportFrom(names=names):
                    modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
                    for name in ".".join([*modules, *(each.name for each in names)]).split("."):
                        if is_private(name) and name not in own:
                            yield str(path.relative_to(ROOT)), name


def overrides() -> Iterator[tuple[str, str]]:
    """Yield each module with the private methods of other packages that its classes override."""
    for found in pkgutil.walk_packages([str(ROOT)], "catalog."):
        if found.name == "catalog.__main__" or found.name.startswith("catalog.migrations."):
            continue  # These run when they are imported.
        module = import_module(found.name)
        for kind in vars(module).values():
            if not isinstance(kind, type) or kind.__module__ != found.name:
                continue
            path = Path(str(module.__file__)).relative_to(ROOT)
            foreign = [each for each in kind.__mro__ if not each.__module__.startswith("catalog")]
            for name, value in vars(kind).items():
                # Libraries put functions of their own into classes, for instance enumerations.
                if not isinstance(value, FunctionType) or not is_private(name):
                    continue
                if value.__module__ == found.name and any(hasattr(each, name) for each in foreign):
                    yield str(path), name


class TestUses:
    def test_every_private_attribute_is_listed_with_its_module(self) -> None:
        listed = {(use.module, name) for use in USES for name in use.names.split()}

        assert {*foreign_reads(), *overrides()} == listed

    @pytest.mark.parametrize("use", USES, ids=lambda use: f"{use.package} in {use.module}")
    def test_installed_version_is_the_one_that_the_module_was_written_for(self, use: Use) -> None:
        assert version(use.package).startswith(f"{use.version}."), use.module

    @pytest.mark.parametrize("use", USES, ids=lambda use: f"{use.package} in {use.module}")
    def test_package_requires_that_version(self, use: Use) -> None:
        project = tomllib.loads((ROOT.parent / "pyproject.toml").read_text(encoding="utf-8"))
        required = [Requirement(each) for each in project["project"]["dependencies"]]
        (versions,) = [each.specifier for each in required if each.name == use.package]
        major, minor = map(int, use.version.split("."))

        assert version(use.package) in versions
        assert f"{major}.{minor + 1}.0" not in versions
        assert f"{major}.{minor - 1}.99" not in versions


class TestAttributes:
    @pytest.mark.parametrize(
        ("function", "parameters"), SIGNATURES, ids=lambda each: getattr(each, "__qualname__", "")
    )
    def test_method_has_the_expected_parameters(self, function: Any, parameters: str) -> None:
        assert f"({', '.join(inspect.signature(function).parameters)})" == parameters

    async def test_aiomysql_connection_has_its_streams(self) -> None:
        connection = aiomysql.Connection()

        assert (connection._reader, connection._writer) == (None, None)
        assert connection._close_reason is None

    def test_aiosqlite_connection_has_its_thread(self) -> None:
        connection = aiosqlite.Connection(lambda: pytest.fail("is not opened"), 64)

        assert connection._running
        assert not connection._thread.is_alive()

    def test_h11_connection_has_its_state_and_what_it_has_received(self) -> None:
        connection = h11.Connection(h11.SERVER)
        connection.receive_data(b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-")

        assert connection.next_event() is h11.NEED_DATA
        assert bytes(connection._receive_buffer.maybe_extract_at_most(3) or b"") == b"GET"
        assert connection._cstate.states[h11.CLIENT] is connection.their_state

    def test_h11_connection_reads_a_chunked_body_and_its_trailers(self) -> None:
        connection = h11.Connection(h11.SERVER)
        connection.receive_data(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        assert isinstance(connection.next_event(), h11.Request)
        reader = connection._reader
        assert isinstance(reader, ChunkedReader)
        assert not reader._reading_trailer

        connection.receive_data(b"0\r\n")

        assert connection.next_event() is h11.NEED_DATA
        assert reader._reading_trailer

    def test_prometheus_series_have_their_values(self) -> None:
        registry = CollectorRegistry()
        counter = Counter("counted", "Counted.", registry=registry)
        histogram = Histogram("measured", "Measured.", buckets=(1, 2), registry=registry)
        histogram.observe(1.5)

        assert counter._value.get() == 0
        assert histogram._sum.get() == 1.5
        assert [each.get() for each in histogram._buckets] == [0, 1, 0]
        assert histogram._upper_bounds == [1, 2, float("inf")]

    def test_prometheus_file_has_the_positions_of_its_values(self, tmp_path: Path) -> None:
        file = MmapedDict(str(tmp_path / "counter_0.db"))
        file.write_value("key", 7.0, 0.0)
        position = file._positions["key"]

        value = memoryview(file._m)[position : position + 8].cast("d")

        assert value[0] == 7
        value.release()
        file.close()

    def test_openapi_provider_has_its_app(self) -> None:
        app = Quart(__name__)

        provider = OpenAPIProvider(app, QuartSchema(app))

        assert provider._app.name == app.name

    async def test_claims_are_found_where_the_guards_store_them(self) -> None:
        app = Quart(__name__)
        async with app.app_context():
            g._jwt_extended_jwt, g._jwt_extended_jwt_header = {"sub": "7"}, {"kid": "x"}

            assert (get_raw_jwt(), get_raw_jwt_header()) == ({"sub": "7"}, {"kid": "x"})
