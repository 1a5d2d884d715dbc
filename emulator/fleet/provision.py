"""Factory provisioning: every device gets its factory and attestation identity from the stand-ins.

The keys are made here and stored before the stand-ins hear of them, so that a run killed in between asks again with
the same keys (`POST /registry/devices` answers the same question the same way). apple-services.md, section 9.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

import msgspec

from certs import keys
from certs.errors import MalformedMessage
from certs.identity import Identity
from certs.keys import KeySource, PrivateKey
from emulator.device.keychain import FactoryIdentity
from emulator.errors import PeerRefused
from emulator.fleet.admin_client import AdminClient
from emulator.fleet.fleet import DevicePlan
from emulator.hardware import Hardware
from emulator.wire import factory
from emulator.wire.factory import FactoryReply, FactoryRequest

BATCH: Final = 200  # devices per request


@dataclass(frozen=True, slots=True, kw_only=True)
class FactoryKeys:
    """The two keys that a device has before it has any certificate."""

    factory: PrivateKey
    attestation: PrivateKey

    @classmethod
    async def make(cls, source: KeySource) -> Self:
        return cls(factory=await source.take("rsa2048"), attestation=await source.take("p256"))

    @classmethod
    def of(cls, identity: FactoryIdentity) -> Self:
        """The keys of a device that was made before."""
        return cls(factory=identity.factory.key, attestation=identity.attestation.key)

    def freeze(self) -> bytes:
        """For the store row of a device that has no certificates yet."""
        return msgspec.msgpack.encode([keys.to_der(self.factory), keys.to_der(self.attestation)])

    @classmethod
    def thaw(cls, data: bytes) -> Self:
        first, second = msgspec.msgpack.decode(data, type=tuple[bytes, bytes])
        return cls(factory=keys.load_own(first), attestation=keys.load_own(second))


async def register(
    admin: AdminClient, devices: Sequence[tuple[Hardware, FactoryKeys]], *, activated: bool = False
) -> list[FactoryIdentity]:
    """Give every device its factory identity; `activated`: with the DeviceCertificate of activation `off`."""
    identities: list[FactoryIdentity] = []
    for start in range(0, len(devices), BATCH):
        batch = devices[start : start + BATCH]
        content = factory.encode_requests([_request(hardware, own) for hardware, own in batch])
        path = f"{factory.PATH}?activated=true" if activated else factory.PATH
        answer = await admin.call("POST", path, json.loads(content))
        try:
            replies = factory.decode_replies(json.dumps(answer).encode())
            identities += [
                _identity(own, reply) for (_, own), reply in zip(batch, replies, strict=True)
            ]
        except (MalformedMessage, ValueError) as error:
            raise PeerRefused(admin.step, str(error)) from error
    return identities


async def assign(admin: AdminClient, plans: Sequence[DevicePlan]) -> None:
    """Put the serial numbers of the fleet into the portal, where their groups say."""
    owned: dict[tuple[str, str | None], list[str]] = {}
    for device in plans:
        if device.organization is not None:
            owner = (device.organization, device.server)
            owned.setdefault(owner, []).append(device.hardware.serial_number)
    for (organization, server), serials in owned.items():
        await admin.call(
            "POST",
            "/portal/devices",
            {"organization": organization, "server": server, "serials": serials},
        )


def _request(hardware: Hardware, own: FactoryKeys) -> FactoryRequest:
    return FactoryRequest(
        serial_number=hardware.serial_number,
        udid=hardware.udid,
        product_type=hardware.model.product_type,
        os_version=hardware.os_version,
        build=hardware.build,
        imei=hardware.imei,
        meid=hardware.meid,
        imei2=hardware.imei2,
        wifi_mac=hardware.wifi_mac,
        bluetooth_mac=hardware.bluetooth_mac,
        ecid=hardware.ecid,
        model_number=hardware.model_number,
        factory_public_key=keys.spki_der(own.factory.public_key()),
        attestation_public_key=keys.spki_der(own.attestation.public_key()),
    )


def _identity(own: FactoryKeys, reply: FactoryReply) -> FactoryIdentity:
    device = reply.device_certificate
    return FactoryIdentity(
        factory=Identity(own.factory, reply.factory_certificate, (reply.device_ca_certificate,)),
        attestation=Identity(
            own.attestation, reply.attestation_certificate, (reply.attestation_sub_ca,)
        ),
        anchors=reply.anchors,
        device=None
        if device is None
        else Identity(own.factory, device, (reply.device_ca_certificate,)),
    )
