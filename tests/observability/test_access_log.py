"""Access log in batches: the lines equal those of the logger, and all lost ones are counted."""

import json
import logging
import os
import select
import threading
from collections.abc import Iterator
from contextlib import suppress
from io import StringIO
from pathlib import Path
from typing import Any, TextIO

import pytest
import structlog
from sqlalchemy import URL

from catalog.observability import logs
from catalog.observability.access_log import AccessLog
from catalog.observability.line_writer import LineWriter
from catalog.observability.logs import configure_logging
from catalog.settings import Settings
from tests.engines import settings_for

TIMEOUT = 30.0
FIELDS: dict[str, Any] = {
    "method": "GET",
    "route": "/api/products/<id>",
    "path": '/api/products/"7"\u20ac',
    "status": 200,
    "duration_ms": 0.25,
    "client": None,
    "user_id": 7,
}


def settings_with(folder: Path, **values: Any) -> Settings:
    """Return the settings of a process that logs as JSON."""
    url = URL.create("sqlite+aiosqlite", database=str(folder / "catalog.db"))
    return settings_for(url, **{"log_level": "info", **values})


class Terminal(StringIO):
    """Terminal that keeps what is written to it."""

    def isatty(self) -> bool:
        """Return true, as terminals do."""
        return True


class Dropped:
    """Counter of dropped lines, by any thread."""

    def __init__(self) -> None:
        self.lines = 0
        self.any = threading.Event()

    def __call__(self, count: int) -> None:
        self.lines += count
        self.any.set()


@pytest.fixture
def dropped() -> Dropped:
    return Dropped()


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """Return both ends of a pipe; the test may close them."""
    ends = os.pipe()
    yield ends
    for end in ends:
        with suppress(OSError):
            os.close(end)


def read_all(fd: int) -> bytes:
    with os.fdopen(fd, "rb") as file:
        return file.read()


class TestLineWriter:
    def test_lines_of_all_sizes_are_written_whole_and_in_order(
        self, tmp_path: Path, dropped: Dropped
    ) -> None:
        lines = [b"%d %b\n" % (number, b"x" * (number % 700)) for number in range(5000)]
        with (tmp_path / "log").open("ab") as file:
            writer = LineWriter(file.fileno(), on_drop=dropped)
            for line in lines:
                writer.write(line)
            writer.close(within=TIMEOUT)

        assert (tmp_path / "log").read_bytes() == b"".join(lines)
        assert dropped.lines == 0

    def test_lines_are_written_without_a_close(
        self, pipe: tuple[int, int], dropped: Dropped
    ) -> None:
        reading, writing = pipe
        writer = LineWriter(writing, on_drop=dropped)

        for line in (b"first\n", b"second\n"):
            writer.write(line)
            assert select.select([reading], [], [], TIMEOUT)[0]
            assert os.read(reading, 100) == line

        writer.close(within=TIMEOUT)

    def test_lines_of_two_writers_to_a_pipe_stay_whole(
        self, pipe: tuple[int, int], dropped: Dropped
    ) -> None:
        reading, writing = pipe
        found: list[bytes] = []
        reader = threading.Thread(target=lambda: found.append(read_all(reading)))
        reader.start()
        # Each batch is larger than the pipe, so that writes of any size would be interleaved.
        writers = [LineWriter(writing, on_drop=dropped, max_bytes=10**9) for _ in range(2)]
        lines = [[b"%d" % name * (100 + n % 300) + b"\n" for n in range(4000)] for name in (1, 2)]
        for number in range(4000):
            for writer, own in zip(writers, lines, strict=True):
                writer.write(own[number])
        for writer in writers:
            writer.close(within=TIMEOUT)
        os.close(writing)
        reader.join(TIMEOUT)

        read = found[0].splitlines(keepends=True)
        for name, own in zip((b"1", b"2"), lines, strict=True):
            assert [line for line in read if line.startswith(name)] == own
        assert len(read) == 8000

    def test_lines_beyond_the_bound_are_dropped_and_counted(
        self, pipe: tuple[int, int], dropped: Dropped
    ) -> None:
        reading, writing = pipe
        writer = LineWriter(writing, on_drop=dropped, max_bytes=10_000)
        line = b"x" * 999 + b"\n"

        for _ in range(1000):
            writer.write(line)
        lost = dropped.lines
        closing = threading.Thread(target=writer.close, kwargs={"within": TIMEOUT})
        closing.start()
        found: list[bytes] = []
        reader = threading.Thread(target=lambda: found.append(read_all(reading)))
        reader.start()
        closing.join()
        os.close(writing)
        reader.join(TIMEOUT)

        assert lost >= 900
        assert found[0] == line * (1000 - lost)

    def test_close_gives_up_on_a_reader_that_stalls(
        self, pipe: tuple[int, int], dropped: Dropped
    ) -> None:
        _, writing = pipe
        writer = LineWriter(writing, on_drop=dropped)
        for _ in range(1000):
            writer.write(b"x" * 999 + b"\n")

        # It returns, although the thread is blocked: nobody has read the pipe.
        writer.close(within=0.3)

        assert select.select([], [writing], [], 0)[1] == []

    def test_lines_for_a_closed_reader_are_counted(
        self, pipe: tuple[int, int], dropped: Dropped
    ) -> None:
        reading, writing = pipe
        os.close(reading)
        writer = LineWriter(writing, on_drop=dropped)

        writer.write(b"lost\n")

        assert dropped.any.wait(TIMEOUT)
        writer.close(within=TIMEOUT)
        assert dropped.lines == 1

    def test_full_pipe_that_does_not_block_is_waited_for(
        self, pipe: tuple[int, int], dropped: Dropped
    ) -> None:
        reading, writing = pipe
        os.set_blocking(writing, False)
        writer = LineWriter(writing, on_drop=dropped)
        lines = [b"%d\n" % number + b"x" * 500 + b"\n" for number in range(1000)]
        for line in lines:
            writer.write(line)
        found: list[bytes] = []
        reader = threading.Thread(target=lambda: found.append(read_all(reading)))
        reader.start()
        writer.close(within=TIMEOUT)
        os.close(writing)
        reader.join(TIMEOUT)

        assert found[0] == b"".join(lines)
        assert dropped.lines == 0


class TestAccessLog:
    @pytest.fixture
    def stream(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TextIO]:
        """Return the file to which this process logs as JSON."""
        handlers = list(logging.getLogger().handlers)
        with (tmp_path / "log").open("a+") as stream:
            configure_logging(settings_with(tmp_path), stream=stream)
            yield stream
        structlog.reset_defaults()
        logging.getLogger().handlers[:] = handlers
        monkeypatch.setattr(logs, "_json_stream", None)

    @pytest.mark.parametrize("context", [{"request_id": "a"}, {"request_id": "a", "trace_id": "b"}])
    async def test_line_equals_that_of_the_logger(
        self, stream: TextIO, context: dict[str, str]
    ) -> None:
        access_log = AccessLog()
        structlog.contextvars.bind_contextvars(**context)

        access_log.request(FIELDS, context)
        access_log.open()
        access_log.request(FIELDS, context)
        access_log.request(FIELDS)
        await access_log.close()
        access_log.request(FIELDS, context)
        structlog.contextvars.clear_contextvars()

        stream.seek(0)
        lines = [json.loads(line) for line in stream.read().splitlines()]
        times = [line.pop("timestamp") for line in lines]
        assert lines == [lines[0]] * 4
        # What a context binds has no order of its own.
        orders = [[name for name in line if name not in context] for line in lines]
        assert orders == [orders[0]] * 4
        assert lines[0] | FIELDS | context == lines[0]
        assert {len(time) for time in times if "." in time} == {len("2026-11-28T15:54:39.263911Z")}

    async def test_level_above_info_logs_no_request(self, stream: TextIO, tmp_path: Path) -> None:
        configure_logging(settings_with(tmp_path, log_level="warning"), stream=stream)
        access_log = AccessLog()

        access_log.open()
        access_log.request(FIELDS)
        await access_log.close()

        stream.seek(0)
        assert stream.read() == ""

    @pytest.mark.usefixtures("stream")
    async def test_terminal_gets_lines_for_people(self, tmp_path: Path) -> None:
        terminal = Terminal()
        configure_logging(settings_with(tmp_path), stream=terminal)
        access_log = AccessLog()

        access_log.open()
        access_log.request(FIELDS)
        await access_log.close()

        assert "request" in terminal.getvalue()
        assert "{" not in terminal.getvalue()

    @pytest.mark.usefixtures("stream")
    async def test_stream_without_a_descriptor_gets_its_lines_at_once(self, tmp_path: Path) -> None:
        other = StringIO()
        configure_logging(settings_with(tmp_path), stream=other)
        access_log = AccessLog()

        access_log.open()
        access_log.request(FIELDS)

        assert json.loads(other.getvalue())["event"] == "request"
        await access_log.close()
