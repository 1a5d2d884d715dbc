"""Configuration profiles: XML, or XML inside a CMS signature (mdm.md 2.1).

`decode` checks the form of the whole profile and the signature, if there is one; who signed is reported, not judged. `encode` writes
unsigned XML, which `certs.cms.sign` signs.
"""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Self

from cryptography import x509

from certs import cms
from certs.errors import MalformedMessage
from emulator.wire import plist
from emulator.wire.fields import Fields, kind_of, optional, present, required, required_list
from emulator.wire.identity_payloads import AcmePayload, Pkcs12Payload, ScepPayload, Subject
from emulator.wire.payloads import CertificatePayload, MdmPayload, OtherPayload, header

__all__ = [
    "AcmePayload",
    "CertificatePayload",
    "MalformedPayload",
    "MdmPayload",
    "OtherPayload",
    "Payload",
    "Pkcs12Payload",
    "Profile",
    "ScepPayload",
    "Subject",
    "decode",
    "encode",
]

Payload = MdmPayload | ScepPayload | AcmePayload | CertificatePayload | Pkcs12Payload | OtherPayload

CONTENT_TYPE: Final = "application/x-apple-aspen-config"

PAYLOADS: Final[dict[str, Any]] = {
    "com.apple.mdm": MdmPayload,
    "com.apple.security.scep": ScepPayload,
    "com.apple.security.acme": AcmePayload,
    "com.apple.security.root": CertificatePayload,
    "com.apple.security.pem": CertificatePayload,
    "com.apple.security.pkcs1": CertificatePayload,
    "com.apple.security.pkcs12": Pkcs12Payload,
}


class MalformedPayload(MalformedMessage):
    """One payload of a profile is broken; `field` is the path to the key, `got` is None when the key is absent."""

    def __init__(self, cause: MalformedMessage, index: int, payload_type: str) -> None:
        super().__init__(cause.field, f"{cause.expected} ({payload_type})", cause.got)
        self.index = index
        self.payload_type = payload_type


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """A configuration profile; `raw` and the signers are how it arrived, not what it says."""

    identifier: str
    uuid: str
    version: int = 1
    display_name: str | None = None
    description: str | None = None
    organization: str | None = None
    removal_disallowed: bool = False
    has_removal_passcode: bool = False
    is_encrypted: bool = False
    encrypted_payload_content: bytes | None = None  # CMS EnvelopedData of the payload array
    payloads: tuple[Payload, ...] = ()
    scope: str | None = None  # System or User
    removal_date: datetime | None = None
    duration_until_removal_s: float | None = None
    expiration_date: datetime | None = None
    target_device_type: int | None = None
    consent_text: Fields | None = None  # locale -> text
    signer_certificates: tuple[x509.Certificate, ...] = field(default=(), compare=False)
    raw: bytes = field(default=b"", compare=False, repr=False)

    @property
    def is_signed(self) -> bool:
        """True when a valid signature came with it, whoever made it."""
        return bool(self.signer_certificates)

    @property
    def mdm(self) -> MdmPayload | None:
        """The MDM payload: an enrollment profile has one."""
        return next((item for item in self.payloads if isinstance(item, MdmPayload)), None)

    def payload(self, uuid: str) -> Payload | None:
        """The payload with this PayloadUUID."""
        return next((item for item in self.payloads if item.uuid == uuid), None)

    def to_fields(self) -> Fields:
        encrypted = self.encrypted_payload_content
        return present(
            {
                "PayloadType": "Configuration",
                "PayloadVersion": self.version,
                "PayloadIdentifier": self.identifier,
                "PayloadUUID": self.uuid,
                "PayloadDisplayName": self.display_name,
                "PayloadDescription": self.description,
                "PayloadOrganization": self.organization,
                "PayloadRemovalDisallowed": self.removal_disallowed or None,
                "HasRemovalPasscode": self.has_removal_passcode or None,
                "IsEncrypted": self.is_encrypted or None,
                "EncryptedPayloadContent": encrypted,
                "PayloadContent": None
                if self.is_encrypted
                else [payload.to_fields() for payload in self.payloads],
                "PayloadScope": self.scope,
                "RemovalDate": self.removal_date,
                "DurationUntilRemoval": self.duration_until_removal_s,
                "PayloadExpirationDate": self.expiration_date,
                "TargetDeviceType": self.target_device_type,
                "ConsentText": self.consent_text,
            }
        )

    @classmethod
    def from_fields(
        cls,
        fields: Fields,
        *,
        raw: bytes = b"",
        signer_certificates: tuple[x509.Certificate, ...] = (),
    ) -> Self:
        if required(fields, "PayloadType", str) != "Configuration":
            raise MalformedMessage("PayloadType", "Configuration", fields["PayloadType"])
        is_encrypted = optional(fields, "IsEncrypted", bool) or False
        return cls(
            **header(fields),
            removal_disallowed=optional(fields, "PayloadRemovalDisallowed", bool) or False,
            has_removal_passcode=optional(fields, "HasRemovalPasscode", bool) or False,
            is_encrypted=is_encrypted,
            encrypted_payload_content=required(fields, "EncryptedPayloadContent", bytes)
            if is_encrypted
            else None,
            payloads=() if is_encrypted else payloads(fields),
            scope=optional(fields, "PayloadScope", str),
            removal_date=optional(fields, "RemovalDate", datetime),
            duration_until_removal_s=optional(fields, "DurationUntilRemoval", float),
            expiration_date=optional(fields, "PayloadExpirationDate", datetime),
            target_device_type=optional(fields, "TargetDeviceType", int),
            consent_text=optional(fields, "ConsentText", dict),
            signer_certificates=signer_certificates,
            raw=raw,
        )


def payloads(fields: Fields) -> tuple[Payload, ...]:
    """The payloads in the order of the profile. Raises MalformedPayload for the first broken one."""
    return tuple(
        _payload(item, index)
        for index, item in enumerate(required_list(fields, "PayloadContent", dict))
    )


def _payload(fields: Fields, index: int) -> Payload:
    name = fields.get("PayloadType")
    name = name if isinstance(name, str) else kind_of(name)
    try:
        payload: Payload = PAYLOADS.get(name, OtherPayload).from_fields(
            fields, f"PayloadContent[{index}]."
        )
    except MalformedMessage as error:
        raise MalformedPayload(error, index, name) from error
    return payload


def encode(profile: Profile) -> bytes:
    """The profile as unsigned XML."""
    return plist.dumps(profile.to_fields())


def decode(data: bytes) -> Profile:
    """Read a profile, signed or not. Raises MalformedMessage or, for a signature that is not the content's, InvalidSignature."""
    if looks_signed(data):
        signed = cms.decode_signed(data)
        if signed.content is None:
            raise MalformedMessage("profile", "content inside the signed message")
        signer = cms.verify_signed(signed)
        others = tuple(other for other in signed.certificates if other != signer)
        return Profile.from_fields(
            plist.loads(signed.content, "profile"),
            raw=data,
            signer_certificates=(signer, *others),
        )
    return Profile.from_fields(plist.loads(data, "profile"), raw=data)


def looks_signed(data: bytes) -> bool:
    """True for what starts as a BER SEQUENCE, as no property list does."""
    return data[:1] == b"\x30"
