"""The server's side of the FaultPoint: asks it at each step, and answers in place of the honest answer."""

from collections import OrderedDict
from typing import Final

from aiohttp import web

from certs.clock import Clock
from certs.errors import ScepFailure
from certs.faults import Action, FaultPoint, no_faults
from certs.scep.faults import ServerFault
from certs.scep.message import FailInfo

MAX_COUNTED: Final = 10_000  # transactions whose requests are numbered for the FaultPoint


class Misbehaviour:
    """Counts requests per step and transaction for its FaultPoint."""

    def __init__(self, faults: FaultPoint, clock: Clock) -> None:
        self._faults = faults
        self._clock = clock
        self._asked: OrderedDict[tuple[str, str], int] = OrderedDict()

    async def at(
        self, step: str, message: object, transaction_id: str = ""
    ) -> web.Response | ScepFailure | Action | None:
        """A whole answer, a refusal, or an action that spoils the honest answer (see `faults.ServerFault`)."""
        if self._faults is no_faults:
            return None
        counted = (step, transaction_id)
        n = self._asked.pop(counted, 0) + 1
        self._asked[counted] = n
        if len(self._asked) > MAX_COUNTED:
            self._asked.popitem(last=False)
        action = self._faults("server", step, message, n)
        if action is None:
            return None
        arguments = action.arguments
        match action.name:
            case ServerFault.DELAY:
                await self._clock.sleep(float(arguments["seconds"]))
                return None
            case ServerFault.STATUS:
                status = int(arguments["status"])
                return text(status, arguments.get("body", f"HTTP {status}"))
            case ServerFault.BODY:
                content_type = arguments.get("content_type", "text/html")
                return web.Response(body=_bytes(arguments["body"]), content_type=content_type)
            case ServerFault.FAIL if step == "pki_operation":
                fail_info = str(arguments.get("fail_info", FailInfo.BAD_REQUEST))
                return ScepFailure(fail_info, str(arguments.get("text", "")))
        return action


def spoilt(body: bytes, fault: Action | None) -> bytes:
    """The bytes of an answer, as far as a fault changes nothing but them."""
    if fault is not None and fault.name == ServerFault.TRAILING_NEWLINE:
        return body + b"\n"
    return body


def text(status: int, words: object) -> web.Response:
    return web.Response(status=status, body=_bytes(words), content_type="text/plain")


def _bytes(value: object) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()
