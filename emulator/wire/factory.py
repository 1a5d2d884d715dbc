"""Factory provisioning: how a new virtual device gets its certificates and trust anchors.

`POST /registry/devices` at the stand-ins takes a list of devices, so that a fleet process needs no CA key of its own.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Self

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_der_public_key

from certs.errors import MalformedMessage
from emulator.wire import json_object
from emulator.wire.fields import Fields, optional, present, required, required_list
from emulator.wire.json_object import certificate_text, required_bytes, required_certificate

PATH: Final = "/registry/devices"


@dataclass(frozen=True, slots=True, kw_only=True)
class FactoryRequest:
    """One device as it leaves the factory, with the public halves of its two keys (SubjectPublicKeyInfo DER)."""

    serial_number: str
    udid: str
    product_type: str
    os_version: str
    build: str
    factory_public_key: bytes  # of FK, RSA-2048
    attestation_public_key: bytes  # of AK, P-256
    imei: str | None = None
    meid: str | None = None
    imei2: str | None = None
    wifi_mac: str | None = None
    bluetooth_mac: str | None = None
    ecid: int | None = None
    model_number: str | None = None

    def to_fields(self) -> Fields:
        return present(
            {
                "serial_number": self.serial_number,
                "udid": self.udid,
                "product_type": self.product_type,
                "os_version": self.os_version,
                "build": self.build,
                "imei": self.imei,
                "meid": self.meid,
                "imei2": self.imei2,
                "wifi_mac": self.wifi_mac,
                "bluetooth_mac": self.bluetooth_mac,
                "ecid": self.ecid,
                "model_number": self.model_number,
                "factory_public_key": json_object.text_of(self.factory_public_key),
                "attestation_public_key": json_object.text_of(self.attestation_public_key),
            }
        )

    @classmethod
    def from_fields(cls, fields: Fields, where: str = "") -> Self:
        return cls(
            serial_number=required(fields, "serial_number", str, where),
            udid=required(fields, "udid", str, where),
            product_type=required(fields, "product_type", str, where),
            os_version=required(fields, "os_version", str, where),
            build=required(fields, "build", str, where),
            imei=optional(fields, "imei", str, where),
            meid=optional(fields, "meid", str, where),
            imei2=optional(fields, "imei2", str, where),
            wifi_mac=optional(fields, "wifi_mac", str, where),
            bluetooth_mac=optional(fields, "bluetooth_mac", str, where),
            ecid=optional(fields, "ecid", int, where),
            model_number=optional(fields, "model_number", str, where),
            factory_public_key=required_bytes(fields, "factory_public_key", where),
            attestation_public_key=required_bytes(fields, "attestation_public_key", where),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Anchors:
    """What a device trusts from the factory on (apple-services.md 9)."""

    sim_apple_root: x509.Certificate
    attestation_root: x509.Certificate
    activation_service_key: bytes  # SubjectPublicKeyInfo DER of SK
    tls_root: x509.Certificate

    def to_fields(self) -> Fields:
        return {
            "sim_apple_root": certificate_text(self.sim_apple_root),
            "attestation_root": certificate_text(self.attestation_root),
            "activation_service_key": json_object.text_of(self.activation_service_key),
            "tls_root": certificate_text(self.tls_root),
        }

    @classmethod
    def from_fields(cls, fields: Fields, where: str = "anchors.") -> Self:
        anchors = cls(
            sim_apple_root=required_certificate(fields, "sim_apple_root", where),
            attestation_root=required_certificate(fields, "attestation_root", where),
            activation_service_key=required_bytes(fields, "activation_service_key", where),
            tls_root=required_certificate(fields, "tls_root", where),
        )
        anchors.load_activation_service_key()
        return anchors

    def load_activation_service_key(self) -> ec.EllipticCurvePublicKey:
        """SK, ready to verify with. Raises MalformedMessage."""
        field = "anchors.activation_service_key"
        try:
            key = load_der_public_key(self.activation_service_key)
        except (ValueError, TypeError) as error:
            raise MalformedMessage(field, "SubjectPublicKeyInfo in DER", str(error)) from error
        if not isinstance(key, ec.EllipticCurvePublicKey):
            raise MalformedMessage(field, "an EC key", type(key).__name__)
        return key


@dataclass(frozen=True, slots=True, kw_only=True)
class FactoryReply:
    """The certificates of one device; `device_certificate` only when the stand-ins hand out activated devices."""

    serial_number: str
    factory_certificate: x509.Certificate  # FC
    device_ca_certificate: x509.Certificate
    attestation_certificate: x509.Certificate  # AC
    attestation_sub_ca: x509.Certificate
    anchors: Anchors
    device_certificate: x509.Certificate | None = None

    def to_fields(self) -> Fields:
        device = self.device_certificate
        return present(
            {
                "serial_number": self.serial_number,
                "factory_certificate": certificate_text(self.factory_certificate),
                "device_ca_certificate": certificate_text(self.device_ca_certificate),
                "attestation_certificate": certificate_text(self.attestation_certificate),
                "attestation_sub_ca": certificate_text(self.attestation_sub_ca),
                "device_certificate": None if device is None else certificate_text(device),
            }
        )

    @classmethod
    def from_fields(cls, fields: Fields, anchors: Anchors, where: str = "") -> Self:
        return cls(
            serial_number=required(fields, "serial_number", str, where),
            factory_certificate=required_certificate(fields, "factory_certificate", where),
            device_ca_certificate=required_certificate(fields, "device_ca_certificate", where),
            attestation_certificate=required_certificate(fields, "attestation_certificate", where),
            attestation_sub_ca=required_certificate(fields, "attestation_sub_ca", where),
            anchors=anchors,
            device_certificate=required_certificate(fields, "device_certificate", where)
            if "device_certificate" in fields
            else None,
        )


def encode_requests(devices: Iterable[FactoryRequest]) -> bytes:
    """The request body for these devices."""
    return json_object.dumps({"devices": [device.to_fields() for device in devices]})


def decode_requests(data: bytes) -> tuple[FactoryRequest, ...]:
    """Read a request body. Raises MalformedMessage naming the device by its place."""
    fields = json_object.loads(data, "factory request")
    return tuple(
        FactoryRequest.from_fields(item, f"devices[{index}].")
        for index, item in enumerate(required_list(fields, "devices", dict))
    )


def encode_replies(replies: Iterable[FactoryReply], anchors: Anchors) -> bytes:
    """The answer body; the anchors are the same for every device and travel once."""
    return json_object.dumps(
        {"devices": [reply.to_fields() for reply in replies], "anchors": anchors.to_fields()}
    )


def decode_replies(data: bytes) -> tuple[FactoryReply, ...]:
    """Read an answer body; the devices come in the order asked. Raises MalformedMessage."""
    fields = json_object.loads(data, "factory reply")
    anchors = Anchors.from_fields(required(fields, "anchors", dict))
    return tuple(
        FactoryReply.from_fields(item, anchors, f"devices[{index}].")
        for index, item in enumerate(required_list(fields, "devices", dict))
    )
