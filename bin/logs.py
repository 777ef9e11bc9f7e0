"""Log lines on standard error: for people on a terminal, JSON otherwise. Libraries speak up from warnings on.

Every line carries what is bound in its context: the request, or the run, its step and their trace (see bin/watch.py). What a line says
of an error is its type and the first line of its message, because databases and validators quote the data itself further down.
"""

import logging
import sys
import traceback
from typing import Any

import structlog

MOST_CHARACTERS = 500
QUIET = ("uvicorn", "psycopg", "httpx", "httpcore", "asyncio", "urllib3", "opentelemetry")

FIRST = ("timestamp", "level", "event")  # in this order, where people look for them

Event = dict[str, Any]


def set_up_logs() -> None:
    structlog.configure(
        processors=[*PROCESSORS, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Lines(readable=sys.stderr.isatty()))
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.INFO)
    for library in QUIET:
        logging.getLogger(library).setLevel(logging.WARNING)
    logging.getLogger("opentelemetry.exporter").setLevel(logging.ERROR)  # it tells of every retry, and then that it gave up


class Lines(logging.Formatter):
    def __init__(self, *, readable: bool) -> None:
        super().__init__()
        plain = structlog.dev.plain_traceback
        self._render: structlog.typing.Processor = (
            structlog.dev.ConsoleRenderer(exception_formatter=plain) if readable else structlog.processors.JSONRenderer()
        )

    def format(self, record: logging.LogRecord) -> str:
        event = event_of(record)
        first = {name: event.pop(name) for name in FIRST if name in event}
        return str(self._render(None, "", first | event))


def event_of(record: logging.LogRecord) -> Event:
    """What a line says: its event, level, logger and timestamp, what is bound in its context, and an exception as text."""
    said: Any = record.msg
    if isinstance(said, dict):  # one of ours, which went through PROCESSORS when it was made
        return dict(said)
    event: Any = {"event": record.getMessage(), "_record": record}
    if record.exc_info:
        event["exc_info"] = record.exc_info
    for process in PROCESSORS:
        event = process(None, record.levelname.lower(), event)
    del event["_record"]
    return event


def first_lines(_: Any, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    for name, value in event.items():
        if isinstance(value, str) and name != "exception":
            event[name] = first_line(value)
    return event


def first_line(text: str) -> str:
    line = text.partition("\n")[0]
    return line if len(line) <= MOST_CHARACTERS else f"{line[:MOST_CHARACTERS]}…"


def traceback_of(exc_info: Any) -> str:
    """The usual traceback, causes first, with the first line of each message."""
    return "\n".join(_told(exc_info[1]))


def _told(error: BaseException) -> list[str]:
    told: list[str] = []
    before = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if before is not None:
        told = [*_told(before), "which led to:" if error.__cause__ else "and then:"]
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            told += [*_told(each), "together with:"]
    frames = "".join(traceback.format_tb(error.__traceback__)).rstrip()
    return [*told, *([frames] if frames else []), f"{type(error).__qualname__}: {first_line(str(error))}"]


PROCESSORS: list[structlog.typing.Processor] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.processors.ExceptionRenderer(traceback_of),
    first_lines,
]
