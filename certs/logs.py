"""How the command lines log: one line an event on stderr, tracebacks without locals."""

import sys


def log_to_stderr(level: int | str = "info") -> None:
    """Set structlog up; only command lines call this, library code only emits."""
    import structlog

    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(),
                # Locals of a frame may hold keys, tokens and challenges.
                exception_formatter=structlog.dev.plain_traceback,
            ),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
