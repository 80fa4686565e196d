"""Write structured logs: an event and its fields.

They are one JSON object a line, or readable lines on a terminal.
"""

import logging
import re
import sys
from collections.abc import Mapping
from enum import Enum
from functools import cache
from types import TracebackType
from typing import Any

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

_SECRET_FIELD = re.compile(r"(^|_)(secret|password|passphrase|token|mnemonic|private_key|seed_phrase)s?$")
_CREDENTIALS = re.compile(r"(?<=://)[^/@\s]+@")
_REDACTED = "[redacted]"
_QUIET_LIBRARIES = ("aiohttp.access", "kopf")


def _plain(value: Any) -> Any:
    """Return a value as JSON can show it.

    It has no bytes and no credentials of URLs, and errors are their text.
    """
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, BaseException):
        value = str(value) or type(value).__name__
    if isinstance(value, str):
        return _CREDENTIALS.sub("", value) if "://" in value else value
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, bytes | bytearray | memoryview):
        return f"[{len(value)} bytes]"
    if isinstance(value, Mapping):
        return {str(name): redact(str(name), entry) for name, entry in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(entry) for entry in value]
    return _plain(str(value))


@cache
def _is_secret(name: str) -> bool:
    return _SECRET_FIELD.search(name) is not None


def redact(name: str, value: Any) -> Any:
    """Return what a field may show: nothing where its name is that of a secret."""
    return _REDACTED if _is_secret(name) else _plain(value)


def _error_of(exc_info: Any) -> BaseException | None:
    if isinstance(exc_info, BaseException):
        return exc_info
    if isinstance(exc_info, tuple):
        return exc_info[1] if isinstance(exc_info[1], BaseException) else None
    return sys.exc_info()[1] if exc_info else None


def _place(trace: TracebackType | None) -> str | None:
    while trace and trace.tb_next:
        trace = trace.tb_next
    return f"{trace.tb_frame.f_code.co_filename.rsplit('/', 1)[-1]}:{trace.tb_lineno}" if trace else None


def _exception_place(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Replace a traceback by type and place: its message and locals may hold anything."""
    error = _error_of(event.pop("exc_info", None))
    event.pop("stack_info", None)
    if error is not None:
        event["error_type"] = type(error).__name__
        if (location := _place(error.__traceback__)) is not None:
            event["at"] = location
    return event


class _Row:
    """Orders the fields of an event.

    Time, level, component and event come first, then those of the caller and its context.
    """

    def __init__(self, component: str) -> None:
        self._component = component

    def __call__(self, _logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        row: EventDict = {
            "time": event.pop("time", None),
            "level": event.pop("level", None),
            "component": self._component,
            "event": _plain(event.pop("event", "")),
        }
        row.update((name, redact(name, value)) for name, value in event.items())
        return row


def _renderer(terminal: bool) -> Processor:
    if terminal:
        return structlog.dev.ConsoleRenderer(timestamp_key="time", pad_event_to=0)
    return structlog.processors.JSONRenderer(ensure_ascii=False)


# Shared by our loggers and by those of libraries, which use the standard library's.
_CONTEXT: tuple[Processor, ...] = (
    structlog.contextvars.merge_contextvars,
    structlog.processors.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
)


class RuntimeLevelLogger(structlog.make_filtering_bound_logger(logging.NOTSET)):  # type: ignore[misc]  # made at run time
    """A bound logger whose methods below the level do nothing.

    `set_level` changes it for all loggers at once.
    """


def _rendering(component: str, *, terminal: bool) -> list[Processor]:
    return [_exception_place, _Row(component), _renderer(terminal)]


def formatter(component: str, *, terminal: bool = False) -> structlog.stdlib.ProcessorFormatter:
    """Return the formatter of the standard library's loggers.

    It renders their records as our own events.
    """
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=_CONTEXT,
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            *_rendering(component, terminal=terminal),
        ],
    )


_processors: list[Processor] = []
"""The processors in use. Loggers that are cached keep this list, so a new configuration replaces its items."""


def use_safe_defaults() -> None:
    """Log to standard error until `configure` is called.

    The defaults of structlog show the values of tracebacks.
    """
    _processors[:] = [*_CONTEXT, *_rendering("pocket", terminal=False)]
    structlog.configure(
        processors=_processors,
        wrapper_class=RuntimeLevelLogger,
        logger_factory=lambda *_: structlog.WriteLogger(sys.stderr),
        cache_logger_on_first_use=False,
    )


def configure(component: str, level: str = "INFO") -> None:
    """Send all logs to standard error: as JSON, or readable where that is a terminal."""
    terminal = sys.stderr.isatty()
    _processors[:] = [*_CONTEXT, *_rendering(component, terminal=terminal)]
    structlog.configure(
        processors=_processors,
        wrapper_class=RuntimeLevelLogger,
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter(component, terminal=terminal))
    logging.basicConfig(handlers=[handler], force=True)
    for library in _QUIET_LIBRARIES:
        logging.getLogger(library).setLevel(logging.WARNING)
    logging.getLogger("aiohttp.websocket").setLevel(logging.ERROR)  # it repeats what any client offers
    set_level(level)


def set_level(level: str) -> None:
    """Change the level of all loggers, of those that are in use, too."""
    number = logging.getLevelNamesMapping()[level.upper()]
    logging.getLogger().setLevel(number)
    for name, method in vars(structlog.make_filtering_bound_logger(number)).items():
        if not name.startswith("_"):
            setattr(RuntimeLevelLogger, name, method)
