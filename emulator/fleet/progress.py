"""Progress of a long run on stderr: a live bar on a terminal, one plain line per interval elsewhere."""

import sys
import time
from types import TracebackType
from typing import Final, Protocol, Self, TextIO

INTERVAL_S: Final = 5.0


class Progress(Protocol):
    """Told of each device that is done."""

    def done(self, *, failed: bool) -> None: ...


class Silent:
    """For tests and for runs whose caller shows nothing."""

    def done(self, *, failed: bool) -> None:
        pass


class Shown:
    """Shows a task of `total` devices; use as a context manager around it."""

    def __init__(self, title: str, total: int, stream: TextIO | None = None) -> None:
        self._title = title
        self._total = total
        self._stream = stream or sys.stderr
        self._finished = 0
        self._failed = 0
        self._started = self._told = time.monotonic()
        self._bar: _Bar | None = None

    def __enter__(self) -> Self:
        if self._stream.isatty():
            self._bar = _Bar(self._title, self._total)
        else:
            self._say(f"{self._title}: {self._total} devices")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
        self._say(self._line())

    def done(self, *, failed: bool) -> None:
        """Count one device."""
        self._finished += 1
        self._failed += failed
        if self._bar is not None:
            self._bar.update(self._finished, self._failed)
        elif time.monotonic() - self._told >= INTERVAL_S:
            self._told = time.monotonic()
            self._say(self._line())

    def _line(self) -> str:
        elapsed = max(0.001, time.monotonic() - self._started)
        failed = f", {self._failed} failed" if self._failed else ""
        return (
            f"{self._title}: {self._finished}/{self._total}{failed}, "
            f"{elapsed:.1f} s ({self._finished / elapsed:.1f}/s)"
        )

    def _say(self, line: str) -> None:
        print(line, file=self._stream, flush=True)


class _Bar:
    def __init__(self, title: str, total: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as RichProgress

        self._progress = RichProgress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("[red]{task.fields[failed]}"),
            TimeElapsedColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        self._task = self._progress.add_task(title, total=total, failed="")
        self._progress.start()

    def update(self, finished: int, failed: int) -> None:
        self._progress.update(
            self._task, completed=finished, failed=f"{failed} failed" if failed else ""
        )

    def stop(self) -> None:
        self._progress.stop()
