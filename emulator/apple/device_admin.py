"""What an administrator may do to one device while the services run: plan its faults, take its activation back."""

from typing import Final

import structlog
from aiohttp import web

from certs.errors import MalformedMessage
from emulator.apple import planned_faults
from emulator.apple.admin import UnknownSerial, describe
from emulator.apple.planned_faults import EVERYBODY, PlannedFaults
from emulator.apple.portal_device import serial_number
from emulator.apple.registry import Registry
from emulator.wire import factory, json_object
from emulator.wire.fields import required

log = structlog.get_logger()

DEVICE: Final = f"{factory.PATH}/{{serial}}"
FAULTS: Final = f"{DEVICE}/faults"  # serial `*`: of every device


class DeviceAdmin:
    """Handlers for the admin application, whose middleware turns errors into answers."""

    def __init__(self, registry: Registry, faults: PlannedFaults) -> None:
        self._registry = registry
        self._faults = faults

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get(FAULTS, self.show),
            web.put(FAULTS, self.plan),
            web.delete(FAULTS, self.clear),
            web.post(f"{DEVICE}/deactivate", self.deactivate),
        ]

    async def show(self, request: web.Request) -> web.Response:
        return self._shown(_serial(request))

    async def plan(self, request: web.Request) -> web.Response:
        """`PUT` {faults: [{step, action, …, count}]}: the whole plan of the device anew."""
        serial = _serial(request)
        fields = json_object.loads(await request.read(), "faults")
        faults = planned_faults.read(required(fields, "faults", list))
        self._faults.plan(serial, faults)
        log.info("faults_planned", serial=serial, count=len(faults))
        return self._shown(serial)

    async def clear(self, request: web.Request) -> web.Response:
        serial = _serial(request)
        self._faults.plan(serial, ())
        log.info("faults_planned", serial=serial, count=0)
        return self._shown(serial)

    async def deactivate(self, request: web.Request) -> web.Response:
        """The registry takes the device for unactivated; its lock, its owner and its identifiers stay (2.7)."""
        serial = _serial(request)
        record = self._registry.get(serial)
        if record is None:
            raise UnknownSerial(serial)
        record.deactivated()
        log.info("deactivated", serial=serial)
        return web.json_response(describe(record))

    def _shown(self, serial: str) -> web.Response:
        return web.json_response({"faults": planned_faults.shown(self._faults.planned(serial))})


def _serial(request: web.Request) -> str:
    text = request.match_info["serial"]
    if text == EVERYBODY:
        return text
    try:
        return serial_number(text)
    except ValueError as error:
        raise MalformedMessage("serial", str(error), text) from error
