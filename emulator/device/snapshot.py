"""A device frozen to bytes for one store row, and thawed again: everything it remembers, keys as our own DER.

The format carries its version; a row of another version is refused, never guessed at. Anchors and issuers are the same for
a whole fleet, so parsed certificates are shared between the devices that name them.
"""

from functools import lru_cache
from typing import Any, Final

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from certs import keys
from certs.errors import MalformedMessage
from certs.identity import Identity
from emulator.device.device import (
    Answer,
    App,
    AttestationCache,
    Device,
    DeviceSettings,
    Enrollment,
    Failure,
    Outbox,
    PendingProfile,
)
from emulator.device.keychain import (
    FactoryIdentity,
    IdentityKind,
    InstalledCertificate,
    InstalledIdentity,
    Keychain,
)
from emulator.device.profiles import InstalledProfile, ProfileStore
from emulator.device.state import State
from emulator.hardware import Hardware
from emulator.wire import json_object
from emulator.wire.cloudconfig import CloudConfiguration, encode_answer
from emulator.wire.factory import Anchors

VERSION: Final = 1


class _Identity(msgspec.Struct, array_like=True):
    """Key as PKCS#8 DER, certificate and chain as DER."""

    key: bytes
    certificate: bytes
    chain: list[bytes]


class _Factory(msgspec.Struct, array_like=True):
    factory: _Identity
    attestation: _Identity
    device: _Identity | None
    sim_apple_root: bytes
    attestation_root: bytes
    activation_service_key: bytes
    tls_root: bytes


class _Certificate(msgspec.Struct, array_like=True):
    profile_identifier: str
    payload_uuid: str
    payload_type: str
    certificate: bytes


class _InstalledIdentity(msgspec.Struct, array_like=True):
    profile_identifier: str
    payload_uuid: str
    kind: IdentityKind
    identity: _Identity


class _Snapshot(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One device; what most devices do not have costs nothing."""

    version: int
    hardware: dict[str, Any]
    factory: _Factory
    name: str
    state: State
    cloud_configuration: bytes | None = None  # JSON as it is on the wire
    enrollment: Enrollment | None = None
    device_identity: _Identity | None = None
    certificates: list[_Certificate] = []
    identities: list[_InstalledIdentity] = []
    profiles: list[InstalledProfile] = []
    apps: list[App] = []
    settings: DeviceSettings = DeviceSettings()
    attestation: AttestationCache | None = None
    outbox: Outbox | None = None
    answered: dict[str, Answer] = {}
    pending: PendingProfile | None = None
    failure: Failure | None = None
    bypass_code: bytes | None = None


_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(_Snapshot)


def freeze(device: Device) -> bytes:
    """Everything of the device in one value."""
    configuration, keychain = device.cloud_configuration, device.keychain
    return _encoder.encode(
        _Snapshot(
            version=VERSION,
            hardware=device.hardware.to_fields(),
            factory=_freeze_factory(device.factory),
            name=device.name,
            state=device.state,
            cloud_configuration=None if configuration is None else encode_answer(configuration),
            enrollment=device.enrollment,
            device_identity=_freeze_optional(keychain.device),
            certificates=[
                _Certificate(
                    item.profile_identifier,
                    item.payload_uuid,
                    item.payload_type,
                    _der(item.certificate),
                )
                for item in keychain.certificates.values()
            ],
            identities=[
                _InstalledIdentity(
                    item.profile_identifier,
                    item.payload_uuid,
                    item.kind,
                    _freeze_identity(item.identity),
                )
                for item in keychain.identities.values()
            ],
            profiles=list(device.profiles.all()),
            apps=device.apps,
            settings=device.settings,
            attestation=device.attestation,
            outbox=device.outbox,
            answered=device.answered,
            pending=device.pending,
            failure=device.failure,
            bypass_code=device.bypass_code,
        )
    )


def thaw(data: bytes) -> Device:
    """The device that was frozen. Raises MalformedMessage for bytes that are not such a row."""
    try:
        row = _decoder.decode(data)
        if row.version != VERSION:
            raise MalformedMessage("device snapshot", f"version {VERSION}", row.version)
        return _thaw(row)
    except (msgspec.DecodeError, ValueError) as error:  # keys and certificates raise ValueError
        raise MalformedMessage("device snapshot", "a frozen device", str(error)) from error


class PushAddress(msgspec.Struct, frozen=True):
    """How an enrolled device is woken."""

    topic: str
    push_token: bytes = b""
    push_magic: str = ""


class _PushAddressOnly(msgspec.Struct):
    """A row of which nothing else is read: no key, no certificate."""

    enrollment: PushAddress | None = None


_push_decoder: Final = msgspec.msgpack.Decoder(_PushAddressOnly)


def push_address(data: bytes) -> PushAddress | None:
    """Where a frozen device is pushed to, in a few microseconds; None for one that is not. Raises MalformedMessage."""
    try:
        address = _push_decoder.decode(data).enrollment
    except msgspec.DecodeError as error:
        raise MalformedMessage("device snapshot", "a frozen device", str(error)) from error
    return address if address is not None and address.push_token else None


def _thaw(row: _Snapshot) -> Device:
    configuration = row.cloud_configuration
    return Device(
        hardware=Hardware.from_fields(row.hardware),
        factory=_thaw_factory(row.factory),
        name=row.name,
        state=row.state,
        cloud_configuration=None
        if configuration is None
        else CloudConfiguration.from_fields(
            json_object.loads(configuration, "cloud configuration")
        ),
        enrollment=row.enrollment,
        keychain=_thaw_keychain(row),
        profiles=ProfileStore({profile.identifier: profile for profile in row.profiles}),
        apps=row.apps,
        settings=row.settings,
        attestation=row.attestation,
        outbox=row.outbox,
        answered=row.answered,
        pending=row.pending,
        failure=row.failure,
        bypass_code=row.bypass_code,
    )


def _freeze_factory(factory: FactoryIdentity) -> _Factory:
    anchors = factory.anchors
    return _Factory(
        _freeze_identity(factory.factory),
        _freeze_identity(factory.attestation),
        _freeze_optional(factory.device),
        _der(anchors.sim_apple_root),
        _der(anchors.attestation_root),
        anchors.activation_service_key,
        _der(anchors.tls_root),
    )


def _thaw_factory(row: _Factory) -> FactoryIdentity:
    return FactoryIdentity(
        factory=_thaw_identity(row.factory),
        attestation=_thaw_identity(row.attestation),
        device=_thaw_optional(row.device),
        anchors=Anchors(
            sim_apple_root=_shared(row.sim_apple_root),
            attestation_root=_shared(row.attestation_root),
            activation_service_key=row.activation_service_key,
            tls_root=_shared(row.tls_root),
        ),
    )


def _thaw_keychain(row: _Snapshot) -> Keychain:
    keychain = Keychain(_thaw_optional(row.device_identity))
    for certificate in row.certificates:
        keychain.add(
            InstalledCertificate(
                profile_identifier=certificate.profile_identifier,
                payload_uuid=certificate.payload_uuid,
                payload_type=certificate.payload_type,
                certificate=_shared(certificate.certificate),
            )
        )
    for identity in row.identities:
        keychain.add(
            InstalledIdentity(
                profile_identifier=identity.profile_identifier,
                payload_uuid=identity.payload_uuid,
                kind=identity.kind,
                identity=_thaw_identity(identity.identity),
            )
        )
    return keychain


def _freeze_identity(identity: Identity) -> _Identity:
    chain = [_der(certificate) for certificate in identity.chain]
    return _Identity(identity.key_der, identity.der, chain)


def _freeze_optional(identity: Identity | None) -> _Identity | None:
    return None if identity is None else _freeze_identity(identity)


def _thaw_identity(row: _Identity) -> Identity:
    return Identity(
        keys.load_own(row.key),
        x509.load_der_x509_certificate(row.certificate),
        tuple(_shared(der) for der in row.chain),
    )


def _thaw_optional(row: _Identity | None) -> Identity | None:
    return None if row is None else _thaw_identity(row)


@lru_cache(maxsize=256)
def _der(certificate: x509.Certificate) -> bytes:
    """Of issuers and anchors, which `_shared` made one object each."""
    return certificate.public_bytes(Encoding.DER)


@lru_cache(maxsize=64)
def _shared(der: bytes) -> x509.Certificate:
    """Issuers and anchors: a handful for thousands of devices."""
    return x509.load_der_x509_certificate(der)
