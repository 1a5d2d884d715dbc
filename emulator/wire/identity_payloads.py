"""The payloads that give a device an identity: SCEP, ACME, PKCS#12 (mdm.md 2.3 to 2.5)."""

from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

from certs.errors import MalformedMessage
from emulator.wire.fields import (
    Fields,
    kind_of,
    optional,
    optional_list,
    present,
    required,
    required_list,
)
from emulator.wire.payloads import PayloadHeader, header, whole

# One relative distinguished name holds (attribute, value) pairs; the outer tuple is the whole name (certificates.md 1.8).
Subject = tuple[tuple[tuple[str, str], ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ScepPayload(PayloadHeader):
    """Where and how to get an identity by SCEP (2.3). Two of the key names contain a space."""

    payload_type: ClassVar[str] = "com.apple.security.scep"

    url: str
    name: str | None = None
    subject: Subject = ()
    challenge: str | None = field(default=None, repr=False)
    keysize: int = 1024  # bits
    key_type: str = "RSA"
    key_usage: int = 0  # 1 signing, 4 encryption
    ca_fingerprint: bytes | None = None  # MD5, SHA-1 or SHA-256, told apart by length
    retries: int = 3
    retry_delay_s: int = 10
    subject_alt_name: Fields = field(default_factory=dict)
    key_is_extractable: bool = True
    allow_all_apps_access: bool = False  # macOS
    get_ca_caps: tuple[str, ...] | None = None  # overrides what the server says it can

    def to_fields(self) -> Fields:
        content = {
            "URL": self.url,
            "Name": self.name,
            "Subject": subject_fields(self.subject) or None,
            "Challenge": self.challenge,
            "Keysize": self.keysize,
            "Key Type": self.key_type,
            "Key Usage": self.key_usage,
            "CAFingerprint": self.ca_fingerprint,
            "Retries": self.retries,
            "RetryDelay": self.retry_delay_s,
            "SubjectAltName": self.subject_alt_name or None,
            "KeyIsExtractable": None if self.key_is_extractable else False,
            "AllowAllAppsAccess": self.allow_all_apps_access or None,
            "GetCACaps": None if self.get_ca_caps is None else list(self.get_ca_caps),
        }
        return {
            **self.header_fields(),
            "PayloadType": self.payload_type,
            "PayloadContent": present(content),
        }

    @classmethod
    def from_fields(cls, fields: Fields, where: str = "") -> Self:
        content = required(fields, "PayloadContent", dict, where)
        inner = f"{where}PayloadContent."

        def number(key: str, default: int) -> int:
            return whole(content, key, inner) if key in content else default

        extractable = optional(content, "KeyIsExtractable", bool, inner)
        return cls(
            **header(fields, where),
            url=required(content, "URL", str, inner),
            name=optional(content, "Name", str, inner),
            subject=subject(content, inner),
            challenge=optional(content, "Challenge", str, inner),
            keysize=number("Keysize", 1024),
            key_type=optional(content, "Key Type", str, inner) or "RSA",
            key_usage=number("Key Usage", 0),
            ca_fingerprint=optional(content, "CAFingerprint", bytes, inner),
            retries=number("Retries", 3),
            retry_delay_s=number("RetryDelay", 10),
            subject_alt_name=subject_alt_name(content, inner),
            key_is_extractable=extractable is not False,
            allow_all_apps_access=optional(content, "AllowAllAppsAccess", bool, inner) or False,
            get_ca_caps=optional_list(content, "GetCACaps", str, inner),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class AcmePayload(PayloadHeader):
    """Where and how to get an identity by ACME (2.4); its keys lie flat in the payload."""

    payload_type: ClassVar[str] = "com.apple.security.acme"

    directory_url: str
    client_identifier: str = field(repr=False)  # may be a one-time code
    key_type: str  # RSA or ECSECPrimeRandom
    key_size: int  # bits
    hardware_bound: bool
    subject: Subject
    subject_alt_name: Fields = field(default_factory=dict)
    usage_flags: int = 0  # 1 signing, 4 encryption
    extended_key_usage: tuple[str, ...] = ()  # dotted OIDs
    attest: bool = False
    key_is_extractable: bool = True  # macOS
    allow_all_apps_access: bool = False  # macOS

    def to_fields(self) -> Fields:
        return {
            **self.header_fields(),
            **present(
                {
                    "PayloadType": self.payload_type,
                    "DirectoryURL": self.directory_url,
                    "ClientIdentifier": self.client_identifier,
                    "KeyType": self.key_type,
                    "KeySize": self.key_size,
                    "HardwareBound": self.hardware_bound,
                    "Subject": subject_fields(self.subject),
                    "SubjectAltName": self.subject_alt_name or None,
                    "UsageFlags": self.usage_flags or None,
                    "ExtendedKeyUsage": list(self.extended_key_usage) or None,
                    "Attest": self.attest,
                    "KeyIsExtractable": None if self.key_is_extractable else False,
                    "AllowAllAppsAccess": self.allow_all_apps_access or None,
                }
            ),
        }

    @classmethod
    def from_fields(cls, fields: Fields, where: str = "") -> Self:
        extractable = optional(fields, "KeyIsExtractable", bool, where)
        required(fields, "Subject", list, where)
        return cls(
            **header(fields, where),
            directory_url=required(fields, "DirectoryURL", str, where),
            client_identifier=required(fields, "ClientIdentifier", str, where),
            key_type=required(fields, "KeyType", str, where),
            key_size=whole(fields, "KeySize", where),
            hardware_bound=required(fields, "HardwareBound", bool, where),
            subject=subject(fields, where),
            subject_alt_name=subject_alt_name(fields, where),
            usage_flags=whole(fields, "UsageFlags", where) if "UsageFlags" in fields else 0,
            extended_key_usage=optional_list(fields, "ExtendedKeyUsage", str, where) or (),
            attest=optional(fields, "Attest", bool, where) or False,
            key_is_extractable=extractable is not False,
            allow_all_apps_access=optional(fields, "AllowAllAppsAccess", bool, where) or False,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Pkcs12Payload(PayloadHeader):
    """An identity, key and certificate, ready made (2.5)."""

    payload_type: ClassVar[str] = "com.apple.security.pkcs12"

    content: bytes = field(repr=False)
    password: str | None = field(default=None, repr=False)
    file_name: str | None = None

    def to_fields(self) -> Fields:
        return present(
            {
                **self.header_fields(),
                "PayloadType": self.payload_type,
                "PayloadContent": self.content,
                "Password": self.password,
                "PayloadCertificateFileName": self.file_name,
            }
        )

    @classmethod
    def from_fields(cls, fields: Fields, where: str = "") -> Self:
        return cls(
            **header(fields, where),
            content=required(fields, "PayloadContent", bytes, where),
            password=optional(fields, "Password", str, where),
            file_name=optional(fields, "PayloadCertificateFileName", str, where),
        )


def subject(fields: Fields, where: str = "") -> Subject:
    """The name in a `Subject` array. Raises MalformedMessage for wrong nesting, as iOS refuses the profile then."""
    if "Subject" not in fields:
        return ()
    return tuple(
        tuple(_pair(pair, f"{where}Subject[{outer}][{inner}]") for inner, pair in enumerate(rdn))
        for outer, rdn in enumerate(required_list(fields, "Subject", list, where))
    )


def _pair(pair: Any, where: str) -> tuple[str, str]:
    match pair:
        case [str() as attribute, str() as value]:
            return attribute, value
    raise MalformedMessage(where, "an array of an attribute and its value", kind_of(pair))


def subject_fields(name: Subject) -> list[list[list[str]]]:
    """The nested arrays of a `Subject`."""
    return [[[attribute, value] for attribute, value in rdn] for rdn in name]


def subject_alt_name(fields: Fields, where: str = "") -> Fields:
    """The `SubjectAltName` dictionary; each value one text or several. Raises MalformedMessage."""
    names = optional(fields, "SubjectAltName", dict, where) or {}
    inner = f"{where}SubjectAltName."
    for key, value in names.items():
        if isinstance(value, list):
            required_list(names, key, str, inner)
        else:
            required(names, key, str, inner)
    return names
