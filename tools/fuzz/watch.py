"""One input decoded under watch: a value, a documented error, or a finding: another error, too much time, too much memory."""

import resource
import signal
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Final

from tools.fuzz.targets import Target

TIME_LIMIT_S: Final = 2.0  # for one input of at most mutate.MAX_BYTES
MEMORY_LIMIT_BYTES: Final = 192 * 1024 * 1024  # by which one input may raise the high-water mark


class TooSlow(BaseException):
    """Raised by the alarm inside a decoder; no handler of ours may catch it."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What is wrong with a decoder's way with one input."""

    kind: str  # the error's type, "slow" or "memory": findings of one kind and place count once
    place: str  # file and line of our code where it came from
    detail: str


def watch(target: Target, data: bytes, *, alarm: bool = True) -> Finding | None:
    """Decode `data`; None when that went as documented."""
    before = high_water()
    started = time.process_time()
    try:
        with warnings.catch_warnings(), _alarm(TIME_LIMIT_S * 5 if alarm else 0):
            warnings.simplefilter("ignore")
            target.decode(data)
    except target.errors:
        pass
    except TooSlow:
        return Finding("slow", target.name, f"more than {TIME_LIMIT_S * 5:g} s")
    except Exception as error:
        return Finding(type(error).__name__, _place(error), str(error)[:200])
    took = time.process_time() - started
    if took > TIME_LIMIT_S:
        return Finding("slow", target.name, f"{took:.1f} s for {len(data)} bytes")
    grown = high_water() - before
    if grown > MEMORY_LIMIT_BYTES:
        return Finding("memory", target.name, f"{grown >> 20} MiB for {len(data)} bytes")
    return None


def high_water() -> int:
    """The most memory that this process ever held, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


@contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    """Interrupt what hangs; only on the main thread, where signals arrive."""
    if not seconds:
        yield
        return

    def ring(number: int, frame: FrameType | None) -> None:
        raise TooSlow

    previous = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


def _place(error: BaseException) -> str:
    """The last line of this project on the way to the error."""
    found = "outside"
    trace = error.__traceback__
    while trace is not None:
        name = trace.tb_frame.f_code.co_filename
        for room in ("/certs/", "/emulator/", "/mdmserver/"):
            if room in name and "site-packages" not in name:
                found = f"{room[1:]}{name.rpartition(room)[2]}:{trace.tb_lineno}"
        trace = trace.tb_next
    return found
