"""How our programs run: on uvloop where it is installed, and with Python's cycle collector out of their way.

Servers and fleets make hundreds of small objects for each request, and nearly all go as soon as nobody refers to them. The
collector, which looks for those that refer to each other, would walk over everything that the start has made again and again.
"""

import asyncio
import gc
import importlib.util
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

T = TypeVar("T")

LOOP_NAME: Final = "uvloop" if importlib.util.find_spec("uvloop") else "asyncio"
SELDOM: Final = (50_000, 20, 50)  # objects, then rounds, between two collections of each generation


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """What `asyncio.Runner` takes; None is the standard loop."""
    if LOOP_NAME != "uvloop":
        return None
    import uvloop

    return uvloop.new_event_loop


def run_program(work: Coroutine[Any, Any, T]) -> T:
    """`asyncio.run` for a program that serves or drives a fleet; afterwards the collector is as it was."""
    thresholds = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(*SELDOM)
    try:
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            runner.get_loop().set_exception_handler(_outside_of_tasks)
            return runner.run(work)
    finally:
        gc.set_threshold(*thresholds)
        gc.unfreeze()


def _outside_of_tasks(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Say what went wrong outside of any task, but for uvloop's complaint of TLS bytes for a connection just closed."""
    error = context.get("exception")
    if isinstance(error, RuntimeError) and "the handler is closed" in str(error):
        return
    loop.default_exception_handler(context)
