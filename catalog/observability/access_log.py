"""Access log: a line for each request, as the loggers render it, at a fraction of their cost."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import orjson
import structlog

from catalog.observability.line_writer import LineWriter
from catalog.observability.logs import json_descriptor, logger
from catalog.observability.metrics import count_dropped_lines

LOGGER = "catalog.access"

CLOSE_SECONDS = 1.0
"""Time for the last lines at the end of the process; a part of that of its last steps."""

_OPTIONS = orjson.OPT_UTC_Z | orjson.OPT_APPEND_NEWLINE

_log = logger(LOGGER)


class AccessLog:
    """Log of the requests of one process; through the logger unless it is open."""

    def __init__(self) -> None:
        self._writer: LineWriter | None = None

    def open(self) -> None:
        """Write lines in batches from now on, if the log goes to a file descriptor as JSON."""
        fd = json_descriptor(LOGGER)
        if fd is not None:
            self._writer = LineWriter(fd, on_drop=count_dropped_lines)

    async def close(self) -> None:
        """Write the lines that are left; further ones go through the logger."""
        writer, self._writer = self._writer, None
        if writer is not None:
            await asyncio.to_thread(writer.close, within=CLOSE_SECONDS)

    def request(self, fields: dict[str, Any], context: dict[str, str] | None = None) -> None:
        """Log a request.

        Args:
            fields: the members of the line, in their order.
            context: what the current context binds for all log lines, if the caller knows it.
        """
        if self._writer is None:
            _log.info("request", **fields)
            return
        if context is None:
            context = structlog.contextvars.get_contextvars()
        # The same members in the same order as those of the logger's processors.
        line = fields | {"event": "request"} | context
        line["logger"] = LOGGER
        line["level"] = "info"
        line["timestamp"] = datetime.now(UTC)
        self._writer.write(orjson.dumps(line, default=str, option=_OPTIONS))
