"""The event loop of both processes: uvloop where it is installed, as in the fleet itself."""

import asyncio
import importlib.util
from collections.abc import Callable
from typing import Final

LOOP_NAME: Final = "uvloop" if importlib.util.find_spec("uvloop") else "asyncio"


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """What `asyncio.Runner` takes; None is the standard loop."""
    if LOOP_NAME != "uvloop":
        return None
    import uvloop

    return uvloop.new_event_loop
