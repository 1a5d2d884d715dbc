"""Lifting an activation lock with its bypass code, as an MDM server does (deviceservices-external; apple-services.md 2.8).

The caller shows its MDM push certificate in the TLS handshake.
"""

import asyncio
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import structlog

from certs.clock import Clock
from certs.errors import MalformedMessage
from emulator.apple.answer import Answer, Received, Refusal
from emulator.apple.pki import SimPKI
from emulator.apple.push_certificate import provider_of
from emulator.apple.registry import Registry
from emulator.wire import activation, bypass_code

log = structlog.get_logger()

PATH: Final = "/deviceservicesworkers/escrowKeyUnlock"
QUERY: Final = ("serial", "productType")  # required, beside imei, imei2 and meid
FORM: Final = ("orgName", "guid", "escrowKey")


@dataclass(frozen=True, slots=True, kw_only=True)
class UnlockRequest:
    """Which device, and the code that shall open it."""

    serial_number: str
    product_type: str
    identifiers: Mapping[str, str]  # of imei, imei2 and meid, those that were sent
    escrow_key: str = field(repr=False)


class EscrowUnlockService:
    """`POST /deviceservicesworkers/escrowKeyUnlock`."""

    step = "escrow_key_unlock"

    def __init__(self, pki: SimPKI, registry: Registry, clock: Clock) -> None:
        self._pki = pki
        self._registry = registry
        self._clock = clock

    def headers(self) -> Mapping[str, str]:
        return {"Cache-Control": "no-cache, no-store"}

    def decode(self, received: Received) -> UnlockRequest:
        if received.certificate is None:
            raise Refusal("CERTIFICATE", 401, "UNAUTHORIZED", "no client certificate")
        authority = self._pki.push_ca
        provider = provider_of(
            received.certificate,
            root=authority.certificate,
            is_revoked=authority.is_revoked,
            required=True,
        )
        problem = provider.problem(self._clock.now())
        if problem is not None:
            raise Refusal("CERTIFICATE", 403, "FORBIDDEN", problem.value)
        try:
            form = activation.decode_form(received.body)
        except MalformedMessage as error:
            raise Refusal("FORM", 400, "MALFORMED", str(error)) from error
        missing = [name for name in QUERY if not received.query.get(name)]
        missing += [name for name in FORM if not form.get(name)]
        if missing:
            raise Refusal("FORM", 400, "MISSING_PARAMETER", ", ".join(missing))
        return UnlockRequest(
            serial_number=received.query["serial"].strip().upper(),
            product_type=received.query["productType"],
            identifiers={
                name: received.query[name]
                for name in ("imei", "imei2", "meid")
                if received.query.get(name)
            },
            escrow_key=form["escrowKey"].decode("latin-1"),
        )

    def serial_number(self, message: UnlockRequest) -> str:
        return message.serial_number

    async def answer(self, message: UnlockRequest) -> Answer:
        record = self._registry.get(message.serial_number)
        hardware = None if record is None else record.hardware
        if record is None or hardware is None or hardware.product_type != message.product_type:
            raise Refusal("DEVICE", 404, "NOT_FOUND", "no such device")
        for name, value in message.identifiers.items():
            own = getattr(hardware, name)
            if own is None or own.replace(" ", "").upper() != value.replace(" ", "").upper():
                raise Refusal("DEVICE", 404, "NOT_FOUND", f"{name} is another device's")
        lock = record.activation_lock
        if lock is None or lock.escrow_hash is None:
            raise Refusal("CODE", 404, "NOT_FOUND", "the device has no lock with a bypass code")
        try:
            raw = bypass_code.decode(message.escrow_key)
        except MalformedMessage as error:
            raise Refusal("CODE", 404, "NOT_FOUND", str(error)) from error
        found = await asyncio.to_thread(bypass_code.escrow_hash, raw)
        if not hmac.compare_digest(found, lock.escrow_hash):
            raise Refusal("CODE", 404, "NOT_FOUND", "the bypass code is not this lock's")
        if record.activation_lock is lock:  # and not one that came meanwhile
            record.unlock()
        log.info("activation_unlocked", serial=record.serial_number, by="bypass code")
        return Answer(outcome="unlocked")
