"""The portal: which organisation owns which serial numbers, and which MDM server and profile they are assigned to.

Comes as YAML or JSON (see README.md of this folder), goes into the registry. Profiles are written with the keys of the
assignment API (apple-services.md 4.9) and held to its limits.
"""

import base64
import hashlib
import json
import uuid
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Final, Self

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from pydantic import AfterValidator, Field, StringConstraints, ValidationInfo, field_validator

from emulator import settings_file
from emulator.apple.registry import Organization, Profile, Registry, Server
from emulator.errors import ConfigurationError
from emulator.settings_file import FileModel
from emulator.wire import cloudconfig
from emulator.wire.fields import present

# Server UUIDs that nobody wrote down are derived from the names, so that a portal read twice is the same portal.
NAMESPACE: Final = uuid.UUID("6d1c3a9e-56f1-4d8b-9d77-0a6a3a4f2b10")

# What an organisation may say of itself; magic, department and support contacts belong to the profile.
FACTS: Final = (
    "address",
    "address_line_1",
    "address_line_2",
    "address_line_3",
    "city",
    "region",
    "zip_code",
    "country",
    "phone",
    "email",
)


def serial_number(text: str) -> str:
    """Upper case, as the services have it (apple-services.md 9.3)."""
    serial = text.strip().upper()
    if not (serial.isascii() and serial.isalnum() and len(serial) <= 20):
        raise ValueError("a serial number has up to 20 letters and digits")
    return serial


def _https(text: str) -> str:
    if not text.lower().startswith("https://") or len(text) == len("https://"):
        raise ValueError("expected an https:// URL")
    return text


def _certificate(text: str) -> str:
    """A certificate in PEM or base64 DER, kept as base64 DER on one line."""
    try:
        if text.lstrip().startswith("-----BEGIN"):
            certificate = x509.load_pem_x509_certificate(text.strip().encode())
        else:
            der = base64.b64decode("".join(text.split()), validate=True)
            certificate = x509.load_der_x509_certificate(der)
    except ValueError:
        raise ValueError("expected a certificate, PEM or base64 of DER") from None
    return base64.b64encode(certificate.public_bytes(serialization.Encoding.DER)).decode()


def _server_uuid(text: str) -> str:
    digits = text.replace("-", "").upper()
    if len(digits) != 32 or set(digits) - set("0123456789ABCDEF"):
        raise ValueError("expected 32 hexadecimal digits")
    return digits


SerialNumber = Annotated[str, AfterValidator(serial_number)]
Url = Annotated[str, Field(max_length=2000), AfterValidator(_https)]
CertificateText = Annotated[str, AfterValidator(_certificate)]
ServerUuid = Annotated[str, AfterValidator(_server_uuid)]
Name = Annotated[str, StringConstraints(min_length=1, max_length=125, strip_whitespace=True)]


class AssignmentProfile(FileModel):
    """A profile as the assignment API defines it; defaults are the API's."""

    url: Url
    profile_name: Name = "Enrollment"
    configuration_web_url: Url | None = None
    allow_pairing: bool = True
    is_supervised: bool = False
    is_mandatory: bool = False
    is_mdm_removable: bool = True
    await_device_configured: bool = False
    is_multi_user: bool = False
    is_return_to_service: bool = False
    auto_advance_setup: bool = False
    do_not_use_profile_from_backup: bool = False
    anchor_certs: tuple[CertificateText, ...] | None = None
    supervising_host_certs: tuple[CertificateText, ...] | None = None
    skip_setup_items: tuple[str, ...] | None = None
    org_magic: str | None = Field(None, min_length=1, max_length=256)
    department: str | None = Field(None, max_length=125)
    support_phone_number: str | None = Field(None, max_length=50)
    support_email_address: str | None = Field(None, max_length=250)
    language: str | None = None
    region: str | None = None

    @field_validator("is_mdm_removable")
    @classmethod
    def _flags(cls, removable: bool, info: ValidationInfo) -> bool:
        """The API's FLAGS_INVALID, still enforced although devices of today supervise in any case."""
        if not removable and info.data.get("is_supervised") is False:
            raise ValueError("false requires is_supervised true (FLAGS_INVALID)")
        return removable

    @field_validator("is_return_to_service")
    @classmethod
    def _exclusive(cls, return_to_service: bool, info: ValidationInfo) -> bool:
        if return_to_service and info.data.get("is_multi_user"):
            raise ValueError("is_multi_user and is_return_to_service exclude each other")
        return return_to_service

    def to_profile(self, server_uuid: str) -> Profile:
        """The profile with a UUID of its own content: a changed profile is another profile, as at Apple."""
        fields = {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in self.model_dump(exclude_none=True).items()
            # Booleans that only newer systems know stay away unless somebody wrote them.
            if key in self.model_fields_set or key in _ALWAYS
        }
        canonical = json.dumps([server_uuid, fields], sort_keys=True)
        return Profile(
            uuid=hashlib.sha256(canonical.encode()).hexdigest()[:32].upper(), fields=fields
        )


_ALWAYS: Final = frozenset(
    {
        "profile_name",
        "allow_pairing",
        "is_supervised",
        "is_mandatory",
        "is_mdm_removable",
        "await_device_configured",
    }
)


class PortalServer(FileModel):
    """An MDM server and the devices assigned to it; without a profile they are assigned to nothing."""

    name: Name
    uuid: ServerUuid | None = None
    profile: AssignmentProfile | None = None
    devices: tuple[SerialNumber, ...] = ()

    def to_server(self, organization: str) -> Server:
        own = self.uuid or uuid.uuid5(NAMESPACE, json.dumps([organization, self.name])).hex.upper()
        return Server(
            name=self.name,
            uuid=own,
            profile=self.profile.to_profile(own) if self.profile else None,
        )


class PortalOrganization(FileModel):
    """An organisation, its servers, and the devices that it owns without having assigned them."""

    name: Name
    address: str | None = None
    address_line_1: str | None = None
    address_line_2: str | None = None
    address_line_3: str | None = None
    city: str | None = None
    region: str | None = None
    zip_code: str | None = None
    country: str | None = None
    phone: str | None = None
    email: str | None = None
    servers: tuple[PortalServer, ...] = ()
    unassigned: tuple[SerialNumber, ...] = ()

    def to_organization(self) -> Organization:
        facts = {key: getattr(self, key) or None for key in FACTS}
        return Organization(
            facts=cloudconfig.Organization(name=self.name, **facts),
            servers={server.name: server.to_server(self.name) for server in self.servers},
        )


class Portal(FileModel):
    """The whole portal file."""

    organizations: tuple[PortalOrganization, ...] = ()

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a portal file. Raises ConfigurationError with every mistake in it."""
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(str(path), [f"cannot be read: {error}"]) from error
        return cls.parse(text, source=str(path))

    @classmethod
    def parse(cls, text: str, *, source: str = "portal") -> Self:
        """Read YAML text; JSON is YAML, too. Raises ConfigurationError with every mistake in it."""
        return cls.from_content(settings_file.load(text, source=source), source=source)

    @classmethod
    def from_content(cls, content: object, *, source: str = "portal") -> Self:
        """Type plain data. Duplicates are looked for even where something else is wrong, to report all at once."""
        mistakes = list(_duplicates(content))
        try:
            portal = settings_file.validate(content, cls, source=source)
        except ConfigurationError as error:
            raise ConfigurationError(source, error.mistakes + mistakes) from error
        if mistakes:
            raise ConfigurationError(source, mistakes)
        return portal

    def apply(self, registry: Registry, now: datetime) -> None:
        """Make this portal the registry's truth about owners; serial numbers may be known before their devices."""
        owned: dict[str, tuple[str, str | None]] = {}
        for organization in self.organizations:
            for server in organization.servers:
                owned.update(dict.fromkeys(server.devices, (organization.name, server.name)))
            owned.update(dict.fromkeys(organization.unassigned, (organization.name, None)))
        registry.replace_owners(
            [organization.to_organization() for organization in self.organizations], owned, now
        )


def describe(registry: Registry) -> dict[str, Any]:
    """The portal as it stands, in the shape of its file: what the administrator reads back."""
    devices: dict[tuple[str, str | None], list[str]] = {}
    for record in registry.records.values():
        if record.organization is not None:
            server = record.server.name if record.server else None
            devices.setdefault((record.organization.name, server), []).append(record.serial_number)
    return {
        "organizations": [
            {
                "name": organization.name,
                **present({key: getattr(organization.facts, key) for key in FACTS}),
                "servers": [
                    {
                        "name": server.name,
                        "uuid": server.uuid,
                        **({"profile": dict(server.profile.fields)} if server.profile else {}),
                        "devices": sorted(devices.get((organization.name, server.name), [])),
                    }
                    for server in organization.servers.values()
                ],
                "unassigned": sorted(devices.get((organization.name, None), [])),
            }
            for organization in registry.organizations.values()
        ]
    }


def _duplicates(content: object) -> Iterator[str]:
    """Names that are not unique and serial numbers that stand twice, in data that may be of any shape."""
    serials: dict[str, str] = {}
    uuids: dict[str, str] = {}
    organizations: dict[str, str] = {}
    for place, organization in _items(content, "organizations", ""):
        yield from _seen(organizations, organization, "name", place)
        servers: dict[str, str] = {}
        for server_place, server in _items(organization, "servers", place):
            yield from _seen(servers, server, "name", server_place)
            yield from _seen(uuids, server, "uuid", server_place)
            yield from _seen_serials(serials, server, "devices", server_place)
        yield from _seen_serials(serials, organization, "unassigned", place)


def _items(content: object, key: str, place: str) -> Iterator[tuple[str, Mapping[str, object]]]:
    items = content.get(key) if isinstance(content, Mapping) else None
    if isinstance(items, list):
        for index, item in enumerate(items):
            if isinstance(item, Mapping):
                yield f"{place}{key}.{index}.", item


def _seen(known: dict[str, str], item: Mapping[str, object], key: str, place: str) -> Iterator[str]:
    value = item.get(key)
    if isinstance(value, str):
        first = known.setdefault(_normal(key, value), place)
        if first != place:
            yield f"{place}{key}: {value!r} is the {key} of {first.rstrip('.')} already"


def _seen_serials(
    known: dict[str, str], item: Mapping[str, object], key: str, place: str
) -> Iterator[str]:
    values = item.get(key)
    if isinstance(values, list):
        for index, value in enumerate(values):
            if isinstance(value, str):
                here = f"{place}{key}.{index}"
                first = known.setdefault(value.strip().upper(), here)
                if first != here:
                    yield f"{here}: {value} stands in {first} already"


def _normal(key: str, value: str) -> str:
    return value.replace("-", "").strip().upper() if key == "uuid" else value.strip()
