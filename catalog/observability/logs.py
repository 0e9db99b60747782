"""Logs: one JSON object a line, or coloured text for people.

Events are ``snake_case`` with fields; the libraries' own records take the same form. Nothing that
is secret is logged: no header, no body, no query string.
"""

import asyncio
import logging
import sys
from typing import Any, TextIO

import orjson
import structlog
from structlog.typing import EventDict, FilteringBoundLogger, Processor

from catalog.settings import Settings


def configure_logging(settings: Settings, *, stream: TextIO | None = None) -> None:
    """Send every event of this process to a stream in the form that the settings ask for.

    Calling it again replaces what the last call set up.

    Args:
        settings: what to log, and how.
        stream: standard output unless given; commands whose output is of use write to another.
    """
    stream = stream or sys.stdout
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
                *_rendering(settings, stream),
            ],
        )
    )
    handler.addFilter(_no_cancelled_resets)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    # Its INFO lines repeat what the supervisor says; its errors do not.
    logging.getLogger("hypercorn.error").setLevel(logging.WARNING)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    # At DEBUG it writes out each statement with its values, hashes of passwords among them.
    logging.getLogger("aiosqlite").setLevel(logging.INFO)
    # Whoever asks for errors only still wants to know who signed in.
    logging.getLogger("catalog.audit").setLevel(logging.INFO)


def _rendering(settings: Settings, stream: TextIO) -> list[Processor]:
    if settings.log_format == "console":
        # The richer formatters print the values of local variables, tokens among them.
        plain = structlog.dev.plain_traceback
        return [structlog.dev.ConsoleRenderer(colors=stream.isatty(), exception_formatter=plain)]
    return [
        structlog.processors.format_exc_info,
        structlog.processors.JSONRenderer(serializer=_to_json),
    ]


def _to_json(event: EventDict, **_: Any) -> str:
    return orjson.dumps(event, default=str).decode()


def _no_cancelled_resets(record: logging.LogRecord) -> bool:
    """Drop the pool's tracebacks about connections that a client's hanging up has cancelled.

    The pool throws such a connection away and makes a new one: nothing is wrong.
    """
    error = record.exc_info[1] if record.exc_info else None
    cancelled = isinstance(error, asyncio.CancelledError)
    return not (record.name.startswith("sqlalchemy.pool") and cancelled)


def logger(name: str) -> FilteringBoundLogger:
    """The logger of a module; what it logs carries the request's id."""
    bound: FilteringBoundLogger = structlog.get_logger(name)
    return bound


def audit_logger(name: str) -> FilteringBoundLogger:
    """A logger whose events are written even when the settings ask only for more severe ones."""
    bound: FilteringBoundLogger = structlog.wrap_logger(
        None,
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory_args=(name,),
    )
    return bound
