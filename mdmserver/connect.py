"""PUT /mdm: the command channel (mdm.md 4); answers the next command, or zero bytes when there is none."""

from aiohttp import web

from certs.errors import MalformedMessage
from emulator.wire.command import ANSWER_CONTENT_TYPE, CONTENT_TYPE, Status, decode_response
from mdmserver.client_identity import ClientIdentities
from mdmserver.devices import Devices
from mdmserver.enrollment import SERVER_PATH
from mdmserver.misbehave import Misbehaviour
from mdmserver.sessions import Sessions


class ConnectDoor:
    """The ServerURL."""

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
        app.router.add_put(SERVER_PATH, self.connect)

    async def connect(self, request: web.Request) -> web.Response:
        """Take Idle or a result; give the next command."""
        expected = CONTENT_TYPE.partition(";")[0]
        if request.content_type != expected:
            raise MalformedMessage("Content-Type", expected, request.content_type)
        body = await request.read()
        caller = await self._identities.identify(request, body)
        response = decode_response(body)
        device = await self._devices.enrolled(response, caller)
        step = "idle" if response.status is Status.IDLE else "command"
        await self._misbehaviour.act(step, response, device.udid)
        command = await self._sessions.respond(device, response, body)
        if command is None:
            return web.Response()
        return web.Response(body=command, headers={"Content-Type": ANSWER_CONTENT_TYPE})
