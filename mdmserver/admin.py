"""The management API, JSON over HTTP on a port of its own, behind `certs.admin_guard`.

Every error is `{"error": sentence}`; a refused request changed nothing.
"""

import asyncio
import json
from collections.abc import Callable
from typing import Any, Final

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler
from cryptography import x509

from certs.clock import Clock
from certs.errors import MalformedMessage
from certs.revocation import OwnRevocations
from emulator.wire import json_object
from emulator.wire.fields import optional
from mdmserver.admin_json import (
    command_from_json,
    command_from_plist,
    command_json,
    device_json,
)
from mdmserver.assignment_errors import AssignmentError
from mdmserver.devices import command_of, queued
from mdmserver.enforcement import Enforcement
from mdmserver.store.base import DeviceRecord, DeviceState, Store

log = structlog.get_logger()

# removeFromCRL is for delta lists only, and aACompromise for attribute certificates.
REASONS: Final = tuple(
    reason.value
    for reason in x509.ReasonFlags
    if reason not in (x509.ReasonFlags.remove_from_crl, x509.ReasonFlags.aa_compromise)
)
PLIST_TYPES: Final = ("application/xml", "text/xml", "application/x-plist")


class AdminDoor:
    """What an administrator sees and does."""

    def __init__(
        self,
        store: Store,
        enforcement: Enforcement,
        clock: Clock,
        revocations: OwnRevocations,
        wake: Callable[[str], None] = lambda udid: None,
    ) -> None:
        """`wake` is told of each device for which a command was queued."""
        self._store = store
        self._enforcement = enforcement
        self._clock = clock
        self._revocations = revocations
        self._wake = wake

    def add_routes(self, app: web.Application) -> None:
        router = app.router
        router.add_get("/v1/devices", self.devices)
        router.add_get("/v1/devices/{udid}", self.device)
        router.add_get("/v1/devices/{udid}/commands", self.commands)
        router.add_post("/v1/devices/{udid}/commands", self.enqueue)
        router.add_post("/v1/devices/{udid}/unenroll", self.unenroll)
        router.add_post("/v1/devices/{udid}/revoke", self.revoke)
        router.add_post("/v1/devices/{udid}/reset-window", self.reset_window)
        router.add_get("/v1/commands/{uuid}", self.command)

    async def devices(self, request: web.Request) -> web.Response:
        """All devices, in the order of their first Authenticate."""
        return web.json_response(
            {"devices": [await self._shown(device) for device in await self._store.devices()]}
        )

    async def device(self, request: web.Request) -> web.Response:
        return web.json_response(await self._shown(await self._device(request)))

    async def commands(self, request: web.Request) -> web.Response:
        """The queue of a device, oldest first, with results."""
        device = await self._device(request)
        commands = await self._store.commands(device.udid)
        return web.json_response({"commands": [command_json(command) for command in commands]})

    async def command(self, request: web.Request) -> web.Response:
        uuid = request.match_info["uuid"]
        command = await self._store.command(uuid)
        if command is None:
            raise _error(web.HTTPNotFound, f"there is no command {uuid}")
        return web.json_response(command_json(command))

    async def enqueue(self, request: web.Request) -> web.Response:
        """Queue a command for the device's next session."""
        device = await self._device(request)
        if device.state is DeviceState.CHECKED_OUT:
            raise _error(web.HTTPConflict, f"device {device.udid} has checked out")
        fields = await _command(request)
        try:
            command = queued(command_of(fields), device.udid, "admin", now=self._clock.now())
        except (TypeError, ValueError, OverflowError) as error:
            raise MalformedMessage(
                "command", "values that a property list can hold", str(error)
            ) from error
        await self._store.enqueue(command)
        self._wake(device.udid)
        log.info(
            "command_queued",
            udid=device.udid,
            request_type=command.request_type,
            command=command.uuid,
        )
        return web.json_response(command_json(command), status=201)

    async def unenroll(self, request: web.Request) -> web.Response:
        """Mark a device: its next request is answered so that it unenrolls."""
        device = await self._device(request)
        await self._store.mark_unenroll(device.udid)
        log.info("marked_to_unenroll", udid=device.udid)
        return web.json_response({"udid": device.udid, "unenroll": True})

    async def revoke(self, request: web.Request) -> web.Response:
        """Withdraw the certificate that a device uses now: it is refused from now on and stands in the CRL."""
        device = await self._device(request)
        reason = await _reason(request)
        sha256 = device.certificate_sha256
        if sha256 is None or not await asyncio.to_thread(self._revocations.revoke, sha256, reason):
            raise _error(web.HTTPConflict, f"device {device.udid} has no certificate of this CA")
        log.info("identity_revoked", udid=device.udid, reason=reason.value)
        return web.json_response(
            {"udid": device.udid, "certificate_sha256": sha256.hex(), "reason": reason.value}
        )

    async def reset_window(self, request: web.Request) -> web.Response:
        """Let a device fetch its enrollment profile once more (rule 116)."""
        udid = request.match_info["udid"]
        count = await self._store.reset_windows(udid)
        if not count and await self._store.device(udid) is None:
            raise _error(web.HTTPNotFound, f"there is no device {udid}")
        log.info("window_reset", udid=udid, windows=count)
        return web.json_response({"udid": udid, "windows_reset": count})

    async def _device(self, request: web.Request) -> DeviceRecord:
        udid = request.match_info["udid"]
        device = await self._store.device(udid)
        if device is None:
            raise _error(web.HTTPNotFound, f"there is no device {udid}")
        return device

    async def _shown(self, device: DeviceRecord) -> dict[str, Any]:
        rules = await self._store.rules(device.udid)
        return device_json(device, rules, self._enforcement.name_of(device))


async def _command(request: web.Request) -> dict[str, Any]:
    body = await request.read()
    if request.content_type in PLIST_TYPES:
        return command_from_plist(body)
    if request.content_type != "application/json":
        raise MalformedMessage(
            "Content-Type", f"application/json or {PLIST_TYPES[0]}", request.content_type
        )
    return command_from_json(json_object.loads(body, "command"))


async def _reason(request: web.Request) -> x509.ReasonFlags:
    """`{"reason": …}` with a CRLReason of RFC 5280, section 5.3.1; without a body unspecified."""
    if not request.body_exists:
        return x509.ReasonFlags.unspecified
    name = optional(json_object.loads(await request.read(), "body"), "reason", str)
    try:
        reason = x509.ReasonFlags(name or "unspecified")
    except ValueError:
        raise MalformedMessage("reason", f"one of {', '.join(REASONS)}", name) from None
    if reason.value not in REASONS:
        raise MalformedMessage("reason", f"one of {', '.join(REASONS)}", name)
    return reason


def _error(kind: type[web.HTTPError], sentence: str) -> web.HTTPError:
    return kind(text=json.dumps({"error": sentence}), content_type="application/json")


@web.middleware
async def json_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Errors as JSON, whoever raised them."""
    try:
        return await handler(request)
    except MalformedMessage as error:
        log.warning("admin_refused", path=request.path, status=400, reason=str(error))
        return web.json_response({"error": str(error)}, status=400)
    except AssignmentError as error:
        log.warning("admin_refused", path=request.path, status=error.status, reason=str(error))
        return web.json_response({"error": str(error)}, status=error.status, headers=error.headers)
    except web.HTTPError as error:
        if error.content_type == "application/json":
            raise
        log.warning("admin_refused", path=request.path, status=error.status, reason=error.reason)
        return web.json_response(
            {"error": f"{request.method} {request.path}: {error.reason}"},
            status=error.status,
            headers={k: v for k, v in error.headers.items() if k == "Allow"},
        )
    except Exception:
        log.exception("admin_error", method=request.method, path=request.path)
        return web.json_response({"error": "internal error, see the server's log"}, status=500)
