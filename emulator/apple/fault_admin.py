"""Canned failures of the device assignment API over the admin API, while the services run (apple-services.md 4.11)."""

import structlog
from aiohttp import web

from emulator import settings_file
from emulator.apple.assignment_faults import AssignmentFaults, FaultsFile
from emulator.wire import json_object

log = structlog.get_logger()

PATH = "/portal/faults"


class FaultAdmin:
    """Handlers for the admin application, whose middleware turns errors into answers."""

    def __init__(self, faults: AssignmentFaults) -> None:
        self._faults = faults

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get(PATH, self.show),
            web.put(PATH, self.plan),
            web.delete(PATH, self.clear),
        ]

    async def show(self, request: web.Request) -> web.Response:
        return web.json_response({"faults": self._faults.shown()})

    async def plan(self, request: web.Request) -> web.Response:
        """`PUT` {faults: {"POST /devices/sync": [{count, response}]}}: the lists of these endpoints anew; others stay."""
        content = json_object.loads(await request.read(), "faults")
        plan = settings_file.validate(content, FaultsFile, source="faults")
        for endpoint, entries in plan.faults.items():
            self._faults.plan(endpoint, entries)
        log.info("assignment_faults_planned", endpoints=len(plan.faults))
        return await self.show(request)

    async def clear(self, request: web.Request) -> web.Response:
        self._faults.clear()
        log.info("assignment_faults_planned", endpoints=0)
        return await self.show(request)
