"""Faults on purpose: carries out the actions that a FaultPoint asks for on side "server".

| action | arguments | what the device sees |
|---|---|---|
| `delay` | `seconds` | the honest answer, late |
| `status` | `status`, `body` | that HTTP status; nothing has happened on the server |
| `body` | `body`, `status` (200), `content_type` | those bytes in place of the honest ones; nothing has happened |
| `drop` | `before` (false) | a closed connection; the server acted, unless `before` is true |
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import TracebackType
from typing import Final

import structlog
from aiohttp import web

from certs.clock import Clock
from certs.faults import Action, FaultPoint, no_faults

log = structlog.get_logger()

ACTIONS: Final = ("delay", "status", "body", "drop")


class Misbehaved(Exception):
    """Ends the handling of a request with an answer that is wrong on purpose; None drops the connection."""

    def __init__(self, response: web.Response | None) -> None:
        self.response = response
        super().__init__("a fault was asked for")


class Handling:
    """One request in flight for simulated time, except while a fault makes it wait: that time must be able to pass."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._scope = clock.busy()
        self.drop = False  # close the connection instead of answering

    def __enter__(self) -> "Handling":
        self._scope.__enter__()
        _handling.set(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._scope.__exit__(kind, error, traceback)

    @contextmanager
    def paused(self) -> Iterator[None]:
        self._scope.__exit__(None, None, None)
        try:
            yield
        finally:
            self._scope = self._clock.busy()
            self._scope.__enter__()


_handling: ContextVar[Handling] = ContextVar("handling")  # of the request that this task answers


class Misbehaviour:
    """The server's side of one FaultPoint."""

    def __init__(self, faults: FaultPoint, clock: Clock) -> None:
        self._faults = faults
        self._clock = clock
        self._counts: Counter[tuple[str, str]] = Counter()

    async def act(self, step: str, message: object, udid: str) -> None:
        """Called once the request is known to be genuine and before anything changes. Raises Misbehaved."""
        if self._faults is no_faults:
            return
        self._counts[step, udid] += 1
        action = self._faults("server", step, message, self._counts[step, udid])
        if action is None:
            return
        log.info("fault", step=step, udid=udid, action=action.name, **action.arguments)
        await self._carry_out(action)

    async def _carry_out(self, action: Action) -> None:
        arguments = action.arguments
        match action.name:
            case "delay":
                with _handling.get().paused():
                    await self._clock.sleep(float(arguments["seconds"]))
            case "status":
                raise Misbehaved(
                    web.Response(
                        status=int(arguments["status"]), body=_bytes(arguments.get("body", b""))
                    )
                )
            case "body":
                raise Misbehaved(
                    web.Response(
                        status=int(arguments.get("status", 200)),
                        body=_bytes(arguments["body"]),
                        headers={"Content-Type": arguments.get("content_type", "application/xml")},
                    )
                )
            case "drop" if arguments.get("before"):
                raise Misbehaved(None)
            case "drop":
                _handling.get().drop = True
            case name:
                raise ValueError(f"unknown action {name}: expected {', '.join(ACTIONS)}")


def _bytes(value: object) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()
