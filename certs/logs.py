"""How the command lines log: one line an event on stderr, whatever peers sent, tracebacks without locals."""

import io
import logging
import sys
from collections.abc import MutableMapping
from typing import Any, TextIO


def log_to_stderr(level: int | str = "info") -> None:
    """Set structlog up; only command lines call this, library code only emits."""
    import structlog

    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            printable,
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(),
                # Locals of a frame may hold keys, tokens and challenges.
                exception_formatter=_traceback,
            ),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    server = logging.getLogger("aiohttp.server")
    if not any(isinstance(one, BrokenRequests) for one in server.filters):
        server.addFilter(BrokenRequests())


def printable(_: object, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """What a peer sent (a transactionID, a subject) moves no cursor and colours nothing on the terminal of the reader."""
    for key, value in event.items():
        if isinstance(value, str) and not value.isprintable() and key not in ("exception", "stack"):
            event[key] = _escaped(value)
    return event


def _traceback(out: TextIO, exc_info: Any) -> None:
    """Its lines stay lines; an error's words may be a peer's."""
    import structlog

    whole = io.StringIO()
    structlog.dev.plain_traceback(whole, exc_info)
    out.write("\n".join(_escaped(line) for line in whole.getvalue().split("\n")))


def _escaped(text: str) -> str:
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


class BrokenRequests(logging.Filter):
    """Turns aiohttp's traceback for a peer that broke HTTP, or hung up half-way, into one line; mistakes of ours keep theirs."""

    def filter(self, record: logging.LogRecord) -> bool:
        import structlog

        error = record.exc_info[1] if record.exc_info else None
        broke_http = any(kind.__name__ == "HttpProcessingError" for kind in type(error).__mro__)
        if not broke_http and not isinstance(error, ConnectionResetError):
            return True
        reason = " ".join(str(error).split())[:200]
        structlog.get_logger().warning("http_request_broken", reason=reason)
        return False
