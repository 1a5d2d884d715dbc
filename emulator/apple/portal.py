"""The portal: which organisation owns which serial numbers, and which MDM server and profile they are assigned to.

Comes as YAML or JSON (see README.md of this folder), goes into the registry. Profiles are written with the keys of the
assignment API (apple-services.md 4.9) and held to its limits.
"""

import base64
import json
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, Field

from emulator import settings_file
from emulator.apple.assignment_profile import AssignmentProfile, CertificateText, Name
from emulator.apple.ledger import IssuedToken, Ledger
from emulator.apple.portal_device import (
    PortalDevice,
    SerialNumber,
    apply_devices,
    describe_devices,
)
from emulator.apple.records import Organization, Person, Role, Server
from emulator.apple.registry import Registry
from emulator.apple.tokens import BUILT_IN
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


def _server_uuid(text: str) -> str:
    digits = text.replace("-", "").upper()
    if len(digits) != 32 or set(digits) - set("0123456789ABCDEF"):
        raise ValueError("expected 32 hexadecimal digits")
    return digits


ServerUuid = Annotated[str, AfterValidator(_server_uuid)]


class PortalPerson(FileModel):
    """Somebody who may use the portal."""

    apple_id: Name
    role: Role = Role.ADMINISTRATOR
    password: str | None = Field(
        None, min_length=1, description="opens activation locks of servers without a bypass code"
    )


class PortalServer(FileModel):
    """An MDM server and the devices assigned to it; without a profile they have none until the server assigns one."""

    name: Name
    uuid: ServerUuid | None = None
    admin_id: str | None = Field(None, description="Apple ID of who made it")
    certificate: CertificateText | None = Field(
        None, description="what its token files are encrypted to, PEM or base64 DER"
    )
    credentials: Literal["micromdm"] | None = Field(
        None, description="those that MicroMDM signs with when it is started with -depsim"
    )
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
    org_id: str | None = Field(None, description="derived from the name where it is absent")
    org_type: Literal["edu", "org", "tvprovider"] = "org"
    org_version: Literal["v1", "v2"] = "v2"
    terms_signed: bool = Field(True, description="false: the assignment API says T_C_NOT_SIGNED")
    people: tuple[PortalPerson, ...] = Field(
        (), description="who may download server tokens; nobody listed: anybody"
    )
    servers: tuple[PortalServer, ...] = ()
    unassigned: tuple[SerialNumber, ...] = ()

    def to_organization(self) -> Organization:
        facts = {key: getattr(self, key) or None for key in FACTS}
        return Organization(
            facts=cloudconfig.Organization(name=self.name, **facts),
            servers={server.name: server.to_server(self.name) for server in self.servers},
            people={
                person.apple_id: Person(
                    apple_id=person.apple_id, role=person.role, password=person.password
                )
                for person in self.people
            },
            org_id=self.org_id or _org_id(self.name),
            org_type=self.org_type,
            org_version=self.org_version,
            terms_signed=self.terms_signed,
        )


class Portal(FileModel):
    """The whole portal file."""

    organizations: tuple[PortalOrganization, ...] = ()
    devices: tuple[PortalDevice, ...] = Field(
        (), description="more about single devices than whose they are"
    )

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
        mistakes = list(duplicates(content))
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
        new = [organization.to_organization() for organization in self.organizations]
        registry.replace_owners([_remembering(registry, one) for one in new], owned, now)
        for organization in self.organizations:
            for server in organization.servers:
                _equip(registry, organization, server, now)
        apply_devices(registry, self.devices)


def _remembering(registry: Registry, organization: Organization) -> Organization:
    """With the passwords that are known already: what an administrator reads back and sends again has none."""
    before = registry.organizations.get(organization.name)
    if before is None:
        return organization
    people = {
        apple_id: replace(person, password=before.people[apple_id].password)
        if person.password is None and apple_id in before.people
        else person
        for apple_id, person in organization.people.items()
    }
    return replace(organization, people=people)


def _equip(
    registry: Registry, organization: PortalOrganization, server: PortalServer, now: datetime
) -> None:
    """What a server has beside its devices goes into its ledger."""
    ledger = registry.ledgers[server.to_server(organization.name).uuid]
    if server.certificate is not None:
        ledger.certificate = base64.b64decode(server.certificate)
    if server.admin_id is not None:
        ledger.admin_id = server.admin_id
    if server.credentials == "micromdm" and ledger.token is None:
        owner = registry.organizations[organization.name]
        built_in = IssuedToken(token=BUILT_IN, issued_at=now, issued_by=owner.admin_id)
        registry.issue(ledger, built_in)
    registry.touch(ledger)


def describe(registry: Registry) -> dict[str, Any]:
    """The portal as it stands, in the shape of its file: what the administrator reads back."""
    devices: dict[tuple[str, str | None], list[str]] = {}
    for record in registry.records.values():
        if record.organization is not None:
            server = record.server.name if record.server else None
            devices.setdefault((record.organization.name, server), []).append(record.serial_number)
    more = describe_devices(registry)
    return {
        **({"devices": more} if more else {}),
        "organizations": [
            {
                "name": organization.name,
                **present({key: getattr(organization.facts, key) for key in FACTS}),
                **_account(organization),
                "servers": [
                    {
                        "name": server.name,
                        "uuid": server.uuid,
                        **_equipment(registry.ledgers[server.uuid]),
                        **({"profile": dict(server.profile.fields)} if server.profile else {}),
                        "devices": sorted(devices.get((organization.name, server.name), [])),
                    }
                    for server in organization.servers.values()
                ],
                "unassigned": sorted(devices.get((organization.name, None), [])),
            }
            for organization in registry.organizations.values()
        ],
    }


def _org_id(name: str) -> str:
    """The number of an organisation that was given none."""
    return str(uuid.uuid5(NAMESPACE, name).int % 10**6)


def _account(organization: Organization) -> dict[str, Any]:
    """What is not as it would be anyway; no password."""
    people = [
        {"apple_id": person.apple_id, "role": person.role.value}
        for person in organization.people.values()
    ]
    own_id = organization.org_id != _org_id(organization.name)
    return {
        **({"org_id": organization.org_id} if own_id else {}),
        **({"org_type": organization.org_type} if organization.org_type != "org" else {}),
        **({"org_version": "v1"} if organization.org_version == "v1" else {}),
        **({} if organization.terms_signed else {"terms_signed": False}),
        **({"people": people} if people else {}),
    }


def _equipment(ledger: Ledger) -> dict[str, Any]:
    certificate, token = ledger.certificate, ledger.token
    built_in = token is not None and token.token.consumer_key == BUILT_IN.consumer_key
    return present(
        {
            "admin_id": ledger.admin_id,
            "certificate": None if certificate is None else base64.b64encode(certificate).decode(),
            "credentials": "micromdm" if built_in else None,
        }
    )


def duplicates(content: object) -> Iterator[str]:
    """Names that are not unique and serial numbers that stand twice, in data that may be of any shape."""
    devices: dict[str, str] = {}
    for place, device in _items(content, "devices", ""):
        yield from _seen(devices, device, "serial_number", place)
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
    if key == "uuid":
        return value.replace("-", "").strip().upper()
    return value.strip().upper() if key == "serial_number" else value.strip()
