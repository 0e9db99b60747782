"""Logging: one JSON object per line, or coloured text on a terminal.

Events are ``snake_case`` with fields; records of libraries are rendered in the same form. Headers,
bodies and query strings are never logged, because they may hold secrets.
"""

import asyncio
import logging
import sys
from typing import Any, TextIO

import orjson
import structlog
from structlog.typing import EventDict, FilteringBoundLogger, Processor

from catalog.settings import Settings

_json_stream: TextIO | None = None
"""The stream to which this process logs as JSON."""


def configure_logging(settings: Settings, *, stream: TextIO | None = None) -> None:
    """Configure logging for this process; a second call replaces the first one's configuration.

    Args:
        settings: the log level.
        stream: standard output if not given; commands whose output is data use another.
    """
    global _json_stream
    stream = stream or sys.stdout
    _json_stream = None if stream.isatty() else stream
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="timestamp"),
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.ExtraAdder()],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *_rendering(stream),
            ],
        )
    )
    handler.addFilter(_no_cancelled_resets)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    # Its INFO lines repeat the supervisor's; its errors do not.
    logging.getLogger("hypercorn.error").setLevel(logging.WARNING)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    # At DEBUG it logs each statement with its values, including password hashes.
    logging.getLogger("aiosqlite").setLevel(logging.INFO)
    # Audit events, such as log-ins, are written even when the log level is higher.
    logging.getLogger("catalog.audit").setLevel(logging.INFO)


def _rendering(stream: TextIO) -> list[Processor]:
    if stream.isatty():
        # The richer formatters print local variables, including tokens.
        plain = structlog.dev.plain_traceback
        return [structlog.dev.ConsoleRenderer(colors=True, exception_formatter=plain)]
    return [
        structlog.processors.format_exc_info,
        structlog.processors.JSONRenderer(serializer=_to_json),
    ]


def _to_json(event: EventDict, **_: Any) -> str:
    return orjson.dumps(event, default=str).decode()


def json_descriptor(name: str) -> int | None:
    """Return the file descriptor to which a logger's events go as JSON.

    None if they go elsewhere or in another form, or if the level of the log is higher than INFO.
    """
    if _json_stream is None or not logging.getLogger(name).isEnabledFor(logging.INFO):
        return None
    try:
        return _json_stream.fileno()
    except (OSError, ValueError):
        # It is no file, or it is closed.
        return None


def _no_cancelled_resets(record: logging.LogRecord) -> bool:
    """Drop the pool's tracebacks about connections cancelled by a client's disconnect.

    The pool replaces such a connection, so they are no error.
    """
    error = record.exc_info[1] if record.exc_info else None
    cancelled = isinstance(error, asyncio.CancelledError)
    return not (record.name.startswith("sqlalchemy.pool") and cancelled)


def logger(name: str) -> FilteringBoundLogger:
    """Return the logger of a module; its events carry the request's id."""
    bound: FilteringBoundLogger = structlog.get_logger(name)
    return bound


def audit_logger(name: str) -> FilteringBoundLogger:
    """Return a logger whose events are written even if the log level is higher."""
    bound: FilteringBoundLogger = structlog.wrap_logger(
        None,
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory_args=(name,),
    )
    return bound
