"""PUT /checkin: Authenticate, TokenUpdate, CheckOut (mdm.md 3); success is an empty 200."""

from typing import Final

from aiohttp import web

from certs.errors import MalformedMessage
from emulator.wire import checkin
from emulator.wire.checkin import Authenticate, CheckOut, TokenUpdate
from mdmserver.client_identity import ClientIdentities
from mdmserver.devices import Devices, device_udid
from mdmserver.enrollment import CHECK_IN_PATH
from mdmserver.misbehave import Misbehaviour
from mdmserver.sessions import Sessions

STEPS: Final = {
    Authenticate: "authenticate",
    TokenUpdate: "token_update",
    CheckOut: "check_out",
}


class CheckinDoor:
    """The CheckInURL."""

    def __init__(
        self,
        devices: Devices,
        identities: ClientIdentities,
        sessions: Sessions,
        misbehaviour: Misbehaviour,
    ) -> None:
        self._devices = devices
        self._identities = identities
        self._sessions = sessions
        self._misbehaviour = misbehaviour

    def add_routes(self, app: web.Application) -> None:
        app.router.add_put(CHECK_IN_PATH, self.check_in)

    async def check_in(self, request: web.Request) -> web.Response:
        """Accept one check-in message."""
        if request.content_type != checkin.CONTENT_TYPE:
            raise MalformedMessage("Content-Type", checkin.CONTENT_TYPE, request.content_type)
        body = await request.read()
        caller = await self._identities.identify(request, body)
        message = checkin.decode(body)
        udid = device_udid(message)
        step = STEPS.get(type(message))
        if step is not None:
            await self._misbehaviour.act(step, message, caller.issued.udid)
        match message:
            case Authenticate():
                await self._devices.begin(message, caller)
                self._sessions.forget(udid)
            case TokenUpdate():
                await self._devices.complete(message, caller)
            case CheckOut():
                await self._devices.end(message, caller)
                self._sessions.forget(udid)
            case _:
                await self._devices.known(message, caller)
                raise MalformedMessage(
                    "MessageType",
                    "Authenticate, TokenUpdate or CheckOut",
                    type(message).__name__,
                )
        return web.Response()
