"""Factory provisioning: what `POST /registry/devices` does with a batch of new devices (apple-services.md 9).

A batch is checked whole before anything happens, every mistake is listed, and either all devices are registered or none.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import structlog
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from certs.errors import MalformedMessage
from certs.keys import PublicKey, spki_der
from emulator.apple.claims import fingerprint
from emulator.apple.pki import SimPKI
from emulator.apple.records import ActivationState, HardwareFacts
from emulator.apple.registry import Registry
from emulator.errors import ConfigurationError
from emulator.wire import json_object
from emulator.wire.factory import FactoryReply, FactoryRequest
from emulator.wire.fields import kind_of, required

log = structlog.get_logger()

SOURCE: Final = "factory request"
MIN_RSA_BITS: Final = 2048
MAX_BATCH: Final = 5_000  # devices; about five seconds of signatures


@dataclass(frozen=True, slots=True, kw_only=True)
class FactoryDevice:
    """One device of a batch, with its keys read."""

    facts: HardwareFacts
    factory_key: rsa.RSAPublicKey
    attestation_key: ec.EllipticCurvePublicKey


@dataclass(frozen=True, slots=True, kw_only=True)
class FactoryBatch:
    """A whole request."""

    devices: tuple[FactoryDevice, ...]
    activated: bool = False  # activation `off`: devices come with a DeviceCertificate

    @classmethod
    def decode(cls, body: bytes, *, activated: bool = False) -> "FactoryBatch":
        """Read a request body. Raises ConfigurationError with the mistakes of all its devices."""
        try:
            fields = json_object.loads(body, SOURCE)
            items = required(fields, "devices", list)
        except MalformedMessage as error:
            raise ConfigurationError(SOURCE, [str(error)]) from error
        if len(items) > MAX_BATCH:
            raise ConfigurationError(
                SOURCE, [f"devices: expected at most {MAX_BATCH}, got {len(items)}"]
            )
        devices: list[FactoryDevice] = []
        mistakes: list[str] = []
        for index, item in enumerate(items):
            try:
                devices.append(_device(item, f"devices[{index}]"))
            except MalformedMessage as error:
                mistakes.append(str(error))
        if mistakes:
            raise ConfigurationError(SOURCE, mistakes)
        return cls(devices=tuple(devices), activated=activated)


class Factory:
    """Registers devices and issues their certificates; one batch at a time."""

    def __init__(self, pki: SimPKI, registry: Registry) -> None:
        self._pki = pki
        self._registry = registry
        self._one_batch = asyncio.Lock()

    async def provision(self, batch: FactoryBatch) -> list[FactoryReply]:
        """Register all devices of a batch. Raises RegistryConflict; then nothing has changed.

        A device that is registered already with the same keys gets certificates again, as a fleet that was killed
        before it stored them asks again: what the services compare is the key.
        """
        async with self._one_batch:
            self._registry.check(device.facts for device in batch.devices)
            # Hundreds of RSA and P-384 signatures would stall every other answer.
            replies = await asyncio.to_thread(self._issue, batch)
            for device in batch.devices:
                record = self._registry.provision(device.facts)
                if batch.activated:
                    record.activation_state = ActivationState.ACTIVATED
        log.info("devices_provisioned", count=len(batch.devices), activated=batch.activated)
        return replies

    def _issue(self, batch: FactoryBatch) -> list[FactoryReply]:
        anchors, pki = self._pki.anchors(), self._pki
        return [
            FactoryReply(
                serial_number=device.facts.serial_number,
                factory_certificate=pki.issue_factory_certificate(
                    device.factory_key, device.facts.udid
                ),
                device_ca_certificate=pki.device_ca.certificate,
                attestation_certificate=pki.attestation.issue_device_identity(
                    device.attestation_key,
                    serial_number=device.facts.serial_number,
                    udid=device.facts.udid,
                ),
                attestation_sub_ca=pki.attestation.sub_ca,
                anchors=anchors,
                device_certificate=(
                    pki.issue_device_certificate(device.factory_key) if batch.activated else None
                ),
            )
            for device in batch.devices
        ]


def _device(item: object, where: str) -> FactoryDevice:
    if not isinstance(item, Mapping):
        raise MalformedMessage(where, "dictionary", kind_of(item))
    request = FactoryRequest.from_fields(dict(item), f"{where}.")
    for key in ("serial_number", "udid", "product_type"):
        value = getattr(request, key)
        if not value or not value.isascii() or not value.isprintable() or len(value) > 64:
            raise MalformedMessage(f"{where}.{key}", "1 to 64 ASCII characters", value)
    factory_key = _key(request.factory_public_key, f"{where}.factory_public_key")
    if not isinstance(factory_key, rsa.RSAPublicKey) or factory_key.key_size < MIN_RSA_BITS:
        raise MalformedMessage(
            f"{where}.factory_public_key", f"an RSA key of {MIN_RSA_BITS} bits or more"
        )
    attestation_key = _key(request.attestation_public_key, f"{where}.attestation_public_key")
    if (
        not isinstance(attestation_key, ec.EllipticCurvePublicKey)
        or attestation_key.curve.name != "secp256r1"
    ):
        raise MalformedMessage(f"{where}.attestation_public_key", "a key on P-256")
    facts = HardwareFacts(
        serial_number=request.serial_number,
        udid=request.udid,
        product_type=request.product_type,
        factory_key=fingerprint(spki_der(factory_key)),
        attestation_key=fingerprint(spki_der(attestation_key)),
        os_version=request.os_version,
        build=request.build,
        imei=request.imei,
        imei2=request.imei2,
        meid=request.meid,
        wifi_mac=request.wifi_mac,
        bluetooth_mac=request.bluetooth_mac,
        ecid=request.ecid,
        model_number=request.model_number,
    )
    return FactoryDevice(facts=facts, factory_key=factory_key, attestation_key=attestation_key)


def _key(der: bytes, where: str) -> PublicKey:
    try:
        key = serialization.load_der_public_key(der)
    except (ValueError, TypeError) as error:
        raise MalformedMessage(where, "SubjectPublicKeyInfo in DER", str(error)) from error
    if not isinstance(key, PublicKey):
        raise MalformedMessage(where, "an RSA or EC key", type(key).__name__)
    return key
