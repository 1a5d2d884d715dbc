"""MachineInfo: the signed property list with which a device introduces itself to an enrollment URL (mdm.md 1a).

The signature is checked here; whether the signer leads to a trusted root is the caller's question.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal, Self

from cryptography import x509

from certs import cms
from certs.errors import MalformedMessage
from certs.identity import Identity
from emulator.wire import plist
from emulator.wire.fields import Fields, optional, present, required

Form = Literal["der", "ber", "sha1-ber", "no-attributes"]

# `sha1-ber` is what a genuine iPhone on iOS 15 sent; the others vary one thing that servers must take (mdm.md 1a).
FORMS: Final[dict[Form, dict[str, Any]]] = {
    "ber": {"ber": True},
    "der": {},
    "sha1-ber": {"digest": "sha1", "ber": True},
    "no-attributes": {"signed_attributes": False},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineInfo:
    """Who asks for an enrollment profile. User Enrollment leaves out everything that identifies the device."""

    product: str  # such as iPhone14,5
    version: str  # the build, not the OS version
    udid: str | None = None
    serial: str | None = None
    os_version: str | None = None  # iOS 17.0 and later
    language: str | None = None
    imei: str | None = None
    meid: str | None = None
    mdm_can_request_software_update: bool | None = None  # iOS 17.0 and later
    software_update_device_id: str | None = None  # iOS 17.4 and later
    supplemental_build_version: str | None = None
    supplemental_os_version_extra: str | None = None

    def to_fields(self) -> Fields:
        return present(
            {
                "IMEI": self.imei,
                "LANGUAGE": self.language,
                "MDM_CAN_REQUEST_SOFTWARE_UPDATE": self.mdm_can_request_software_update,
                "MEID": self.meid,
                "OS_VERSION": self.os_version,
                "PRODUCT": self.product,
                "SERIAL": self.serial,
                "SOFTWARE_UPDATE_DEVICE_ID": self.software_update_device_id,
                "SUPPLEMENTAL_BUILD_VERSION": self.supplemental_build_version,
                "SUPPLEMENTAL_OS_VERSION_EXTRA": self.supplemental_os_version_extra,
                "UDID": self.udid,
                "VERSION": self.version,
            }
        )

    @classmethod
    def from_fields(cls, fields: Fields) -> Self:
        return cls(
            product=required(fields, "PRODUCT", str),
            version=required(fields, "VERSION", str),
            udid=optional(fields, "UDID", str),
            serial=optional(fields, "SERIAL", str),
            os_version=optional(fields, "OS_VERSION", str),
            language=optional(fields, "LANGUAGE", str),
            imei=optional(fields, "IMEI", str),
            meid=optional(fields, "MEID", str),
            mdm_can_request_software_update=optional(
                fields, "MDM_CAN_REQUEST_SOFTWARE_UPDATE", bool
            ),
            software_update_device_id=optional(fields, "SOFTWARE_UPDATE_DEVICE_ID", str),
            supplemental_build_version=optional(fields, "SUPPLEMENTAL_BUILD_VERSION", str),
            supplemental_os_version_extra=optional(fields, "SUPPLEMENTAL_OS_VERSION_EXTRA", str),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedMachineInfo:
    """What a signed body proved: the holder of `signer`'s key said `info`."""

    info: MachineInfo
    signer: x509.Certificate
    certificates: tuple[x509.Certificate, ...]  # all that came along, in the order sent


def encode(info: MachineInfo) -> bytes:
    """The property list, unsigned."""
    return plist.dumps(info.to_fields())


def decode(data: bytes) -> MachineInfo:
    """Read the unsigned property list. Raises MalformedMessage."""
    return MachineInfo.from_fields(plist.loads(data, "MachineInfo"))


def sign(
    info: MachineInfo,
    identity: Identity,
    *,
    form: Form = "ber",
    signing_time: datetime | None = None,
) -> bytes:
    """CMS SignedData with the property list inside, in one of the forms that servers meet."""
    return cms.sign(encode(info), identity, signing_time=signing_time, **FORMS[form])


def verify(data: bytes) -> SignedMachineInfo:
    """Check the signature over the content and read it. Raises MalformedMessage or InvalidSignature."""
    signed = cms.decode_signed(data)
    if signed.content is None:
        raise MalformedMessage("MachineInfo", "content inside the signed message")
    signer = cms.verify_signed(signed)
    return SignedMachineInfo(
        info=decode(signed.content), signer=signer, certificates=signed.certificates
    )
