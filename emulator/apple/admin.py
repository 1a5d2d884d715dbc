"""The administrator's side: provisioning, the portal, activation locks and anchors, as JSON behind a bearer token.

Every refusal is `{"error": "…"}`, with a list beside it where there is more than one thing to mend. No answer holds a secret.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler

from certs.admin_guard import admin_middleware
from certs.clock import Clock
from certs.errors import MalformedMessage
from certs.plain_bodies import plain_bodies
from emulator.apple import portal
from emulator.apple.claims import RegistryConflict
from emulator.apple.pki import SimPKI
from emulator.apple.portal import Portal
from emulator.apple.provisioning import Factory, FactoryBatch
from emulator.apple.records import ActivationLock, DeviceRecord
from emulator.apple.registry import LimitReached, Registry, UnknownOwner
from emulator.apple.tokens import NotAllowed
from emulator.config import MAX_BODY_BYTES
from emulator.errors import ConfigurationError, EmulatorError
from emulator.wire import bypass_code, factory, json_object
from emulator.wire.fields import optional, present

log = structlog.get_logger()

HEALTH_PATH: Final = "/healthz"  # the one path without a token
PAGE: Final = 1000  # devices per answer unless the request says otherwise


class UnknownSerial(EmulatorError):
    """No record has this serial number."""

    def __init__(self, serial_number: str) -> None:
        self.serial_number = serial_number
        super().__init__(f"no device has serial number {serial_number:.64}")


class Admin:
    """The handlers of the admin port."""

    def __init__(
        self,
        pki: SimPKI,
        registry: Registry,
        clock: Clock,
        keep: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """`keep` returns once every change is where it outlives the process."""
        self._keep = keep
        self._pki = pki
        self._registry = registry
        self._clock = clock
        self._factory = Factory(pki, registry)

    def application(
        self, token: str, hosts: Callable[[], set[str]], more: Iterable[web.RouteDef] = ()
    ) -> web.Application:
        """The whole port: guard, errors, routes; `more` are those of other services."""
        guard = admin_middleware(token, hosts)

        @web.middleware
        async def guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
            if request.path == HEALTH_PATH:
                return await handler(request)
            return await guard(request, handler)

        app = web.Application(
            middlewares=[plain_bodies, guarded, self._errors], client_max_size=MAX_BODY_BYTES
        )
        app.add_routes(
            [
                web.get(HEALTH_PATH, self.healthz),
                web.post(factory.PATH, self.provision),
                web.get(factory.PATH, self.devices),
                web.get(f"{factory.PATH}/{{serial}}", self.device),
                web.delete(f"{factory.PATH}/{{serial}}", self.remove),
                web.post(f"{factory.PATH}/{{serial}}/activation-lock", self.lock),
                web.delete(f"{factory.PATH}/{{serial}}/activation-lock", self.unlock),
                web.get("/portal", self.portal),
                web.put("/portal", self.replace_portal),
                web.get("/anchors", self.anchors),
                *more,
            ]
        )
        return app

    async def healthz(self, request: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def provision(self, request: web.Request) -> web.Response:
        """`POST /registry/devices[?activated=true]`: factory provisioning (`emulator.wire.factory`)."""
        activated = request.query.get("activated") == "true"
        body = await request.read()
        # Thousands of keys to read and certificates to write: off the event loop, like the signatures.
        batch = await asyncio.to_thread(FactoryBatch.decode, body, activated=activated)
        replies = await self._factory.provision(batch)
        body = await asyncio.to_thread(factory.encode_replies, replies, self._pki.anchors())
        return web.Response(body=body, content_type="application/json")

    async def devices(self, request: web.Request) -> web.Response:
        """`GET /registry/devices?offset=0&limit=1000`: every serial number that is known, in order."""
        offset, limit = _count(request, "offset", 0), _count(request, "limit", PAGE)
        serials = sorted(self._registry.records)
        page = serials[offset : offset + limit]
        return web.json_response(
            {
                "total": len(serials),
                "devices": [describe(self._registry.records[serial]) for serial in page],
            }
        )

    async def device(self, request: web.Request) -> web.Response:
        return web.json_response(describe(self._record(request)))

    async def remove(self, request: web.Request) -> web.Response:
        """The device is forgotten; its serial number stays with its owner."""
        serial = request.match_info["serial"].upper()
        if not self._registry.remove(serial):
            raise UnknownSerial(serial)
        log.info("device_removed", serial=serial)
        return web.json_response({"removed": serial})

    async def lock(self, request: web.Request) -> web.Response:
        """Lock with an account (`login`, `password`), with a `bypass_code` or its `escrow_key`, or with both."""
        record = self._record(request)
        record.lock(await _activation_lock(await request.read()))
        log.info("activation_locked", serial=record.serial_number)
        return web.json_response(describe(record))

    async def unlock(self, request: web.Request) -> web.Response:
        record = self._record(request)
        record.unlock()
        log.info("activation_unlocked", serial=record.serial_number)
        return web.json_response(describe(record))

    async def portal(self, request: web.Request) -> web.Response:
        return web.json_response(portal.describe(self._registry))

    async def replace_portal(self, request: web.Request) -> web.Response:
        """`PUT /portal`: the whole portal anew, YAML, or JSON by its content type."""
        body = await request.read()
        if request.content_type == "application/json":
            new = Portal.from_content(json_object.loads(body, "portal"))
        else:
            try:
                new = Portal.parse(body.decode())
            except UnicodeDecodeError as error:
                raise MalformedMessage("portal", "UTF-8 text", str(error)) from error
        new.apply(self._registry, self._clock.now())
        log.info("portal_replaced", organizations=len(new.organizations))
        return web.json_response(portal.describe(self._registry))

    async def anchors(self, request: web.Request) -> web.Response:
        """Every anchor as PEM; for a server under test: the Sim Apple root and the attestation root."""
        return web.json_response(self._pki.pems())

    def _record(self, request: web.Request) -> DeviceRecord:
        serial = request.match_info["serial"].upper()
        record = self._registry.get(serial)
        if record is None:
            raise UnknownSerial(serial)
        return record

    @web.middleware
    async def _errors(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """What the caller did wrong, in one JSON object and one log line."""
        try:
            with self._clock.busy():
                response = await handler(request)
                if self._keep is not None:
                    await self._keep()
                return response
        except ConfigurationError as error:
            return _refuse(request, 400, str(error), mistakes=error.mistakes)
        except MalformedMessage as error:
            return _refuse(request, 400, str(error))
        except RegistryConflict as error:
            return _refuse(request, 409, str(error), conflicts=error.conflicts)
        except (UnknownOwner, UnknownSerial) as error:
            return _refuse(request, 404, str(error))
        except NotAllowed as error:
            return _refuse(request, 403, str(error))
        except LimitReached as error:
            return _refuse(request, 409, str(error))
        except web.HTTPException as error:
            refusal = _refuse(request, error.status, error.reason)
            if "Allow" in error.headers:
                refusal.headers["Allow"] = error.headers["Allow"]
            return refusal
        except Exception as error:
            log.exception("admin_request_failed", path=request.path, error=str(error))
            return _refuse(request, 500, "internal error; the log says more")


def describe(record: DeviceRecord) -> dict[str, Any]:
    """One record as JSON: no key, no credentials."""
    hardware, server, profile = record.hardware, record.server, record.profile
    facts: dict[str, Any] = {}
    if hardware is not None:
        facts = {
            "udid": hardware.udid,
            "product_type": hardware.product_type,
            "os_version": hardware.os_version,
            "build": hardware.build,
            "imei": hardware.imei,
            "imei2": hardware.imei2,
            "meid": hardware.meid,
            "wifi_mac": hardware.wifi_mac,
            "bluetooth_mac": hardware.bluetooth_mac,
            "ecid": hardware.ecid,
            "model_number": hardware.model_number,
            "activation_state": record.activation_state.value,
            "activation_locked": record.activation_lock is not None,
        }
    return {
        "serial_number": record.serial_number,
        "provisioned": hardware is not None,
        "profile_status": record.profile_status.value,
        **present(
            {
                **facts,
                "organization": record.organization.name if record.organization else None,
                "server": server.name if server else None,
                "server_uuid": server.uuid if server else None,
                "profile_uuid": profile.uuid if profile else None,
                "profile_assign_time": _time(record.profile_assign_time),
                "profile_push_time": _time(record.profile_push_time),
                "provisional_until": _time(record.provisional_until),
            }
        ),
    }


async def _activation_lock(body: bytes) -> ActivationLock:
    fields = json_object.loads(body, "activation lock")
    login, password = optional(fields, "login", str), optional(fields, "password", str)
    code, escrow_key = optional(fields, "bypass_code", str), optional(fields, "escrow_key", str)
    message = optional(fields, "message", str)
    if (login is None) != (password is None):
        raise MalformedMessage("activation lock", "login and password together")
    escrow_hash = None
    if code is not None:
        escrow_hash = await asyncio.to_thread(bypass_code.escrow_hash, bypass_code.decode(code))
    elif escrow_key is not None:
        try:
            escrow_hash = bytes.fromhex(escrow_key)
        except ValueError:
            raise MalformedMessage("escrow_key", "hexadecimal digits") from None
    if login is None and escrow_hash is None:
        raise MalformedMessage("activation lock", "login and password, bypass_code or escrow_key")
    lock = ActivationLock(
        account=(login, password) if login is not None and password is not None else None,
        escrow_hash=escrow_hash,
    )
    return lock if message is None else replace(lock, message=message)


def _count(request: web.Request, name: str, default: int) -> int:
    text = request.query.get(name, str(default))
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise MalformedMessage(name, "a whole number", text)
    return int(text)


def _time(moment: datetime | None) -> str | None:
    return None if moment is None else f"{moment:%Y-%m-%dT%H:%M:%SZ}"


def _refuse(request: web.Request, status: int, error: str, **details: list[str]) -> web.Response:
    log.warning(
        "admin_request_refused",
        status=status,
        method=request.method,
        path=request.path,
        reason=error.partition("\n")[0],
    )
    return web.Response(
        status=status,
        body=json.dumps({"error": error, **details}).encode(),
        content_type="application/json",
    )
