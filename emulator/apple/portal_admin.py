"""The portal over the admin API: organisations, their terms and people, and whose devices are whose (rules 33 to 36, 117 to 120).

What a person does in Apple's portal with a mouse is a request here; the routes join those of `admin`, behind its guard.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Final, cast

import structlog
from aiohttp import web

from certs.clock import Clock
from certs.errors import MalformedMessage
from emulator.apple.admin import UnknownSerial, describe
from emulator.apple.portal import PortalOrganization
from emulator.apple.portal_device import serial_number
from emulator.apple.records import DeviceRecord, Organization, Person, Purchase, Role
from emulator.apple.registry import Registry, UnknownOwner
from emulator.apple.tokens import enroller
from emulator.settings_file import validate
from emulator.wire import json_object
from emulator.wire.assignment import time_of
from emulator.wire.fields import Fields, optional, present, required, required_list

log = structlog.get_logger()

ORGANIZATION: Final = "/portal/organizations/{organization}"
PERSON: Final = f"{ORGANIZATION}/people/{{apple_id}}"
EVENTS: Final = ("password_changed", "left", "renamed")
ORG_TYPES: Final = ("edu", "org", "tvprovider")
ORG_VERSIONS: Final = ("v1", "v2")
DEVICE_KEYS: Final = ("servers", "unassigned")  # of the portal file; an organisation begins without
PURCHASE: Final = ("product_type", "description", "color", "asset_tag")


class PortalAdmin:
    """Handlers for the admin application, whose middleware turns errors into answers."""

    def __init__(self, registry: Registry, clock: Clock) -> None:
        self._registry = registry
        self._clock = clock

    def routes(self) -> list[web.RouteDef]:
        return [
            web.post("/portal/organizations", self.found),
            web.patch(ORGANIZATION, self.change),
            web.put(PERSON, self.person),
            web.post(f"{PERSON}/events", self.event),
            web.post("/portal/devices", self.own),
            web.post("/portal/devices/release", self.release),
            web.post("/portal/devices/configurator", self.add_provisionally),
            web.patch("/portal/devices/{serial}", self.describe_device),
        ]

    # ---- organisations and people ----

    async def found(self, request: web.Request) -> web.Response:
        """`POST /portal/organizations` {name, …}: one more, with the keys of the portal file but no devices."""
        fields = await _fields(request)
        facts = {key: value for key, value in fields.items() if key not in DEVICE_KEYS}
        new = validate(facts, PortalOrganization, source="organization").to_organization()
        before = self._registry.organizations.get(new.name)
        if before is not None:
            new = replace(new, servers=before.servers)
        self._registry.set_organization(new)
        log.info("organization_set", organization=new.name)
        return web.json_response(_organization(new), status=200 if before else 201)

    async def change(self, request: web.Request) -> web.Response:
        """`PATCH` {terms_signed, org_type, org_version}."""
        organization, fields = self._organization(request), await _fields(request)
        terms = optional(fields, "terms_signed", bool)
        if terms is not None:
            organization = replace(organization, terms_signed=terms)
        for key, words in (("org_type", ORG_TYPES), ("org_version", ORG_VERSIONS)):
            word = optional(fields, key, str)
            if word is not None:
                if word not in words:
                    raise MalformedMessage(key, " or ".join(words), word)
                organization = replace(organization, **cast(Any, {key: word}))
        self._registry.set_organization(organization)
        log.info("organization_changed", organization=organization.name, terms_signed=terms)
        return web.json_response(_organization(organization))

    async def person(self, request: web.Request) -> web.Response:
        """`PUT …/people/{apple_id}` {role, password}: somebody comes, or gets another role."""
        organization, fields = self._organization(request), await _fields(request)
        word = optional(fields, "role", str) or Role.ADMINISTRATOR.value
        try:
            role = Role(word)
        except ValueError:
            raise MalformedMessage("role", ", ".join(Role), word) from None
        apple_id = request.match_info["apple_id"]
        before = organization.people.get(apple_id)
        password = optional(fields, "password", str) or (before.password if before else None)
        person = Person(apple_id=apple_id, role=role, password=password)
        organization = replace(organization, people={**organization.people, apple_id: person})
        self._registry.set_organization(organization)
        log.info("person_set", organization=organization.name, apple_id=apple_id, role=role.value)
        return web.json_response(_organization(organization))

    async def event(self, request: web.Request) -> web.Response:
        """`POST …/people/{apple_id}/events` {event}: `password_changed` and `left` end the tokens that the person made;
        `renamed` {apple_id} is another Apple ID for the same person (rules 118, 119)."""
        organization, fields = self._organization(request), await _fields(request)
        apple_id, event = request.match_info["apple_id"], required(fields, "event", str)
        if event not in EVENTS:
            raise MalformedMessage("event", ", ".join(EVENTS), event)
        people = dict(organization.people)
        ended = []
        if event == "renamed":
            new = required(fields, "apple_id", str)
            people = {
                (new if key == apple_id else key): (
                    replace(person, apple_id=new) if key == apple_id else person
                )
                for key, person in people.items()
            }
        elif event == "left":
            people.pop(apple_id, None)
        self._registry.set_organization(replace(organization, people=people))
        for server in organization.servers.values():
            ledger = self._registry.ledgers[server.uuid]
            if event == "renamed":
                ledger.rename_admin(apple_id, required(fields, "apple_id", str))
                self._registry.touch(ledger)
            elif ledger.token is not None and ledger.token.issued_by == apple_id:
                ledger.end_token("apple_id")
                self._registry.touch(ledger)
                ended.append(server.name)
        log.info("apple_id_event", apple_id=apple_id, what=event, tokens_ended=len(ended))
        return web.json_response({"event": event, "tokens_ended": ended})

    # ---- devices ----

    async def own(self, request: web.Request) -> web.Response:
        """`POST /portal/devices` {organization, server or null, serials}: assign without touching the rest.

        Beside these: `by`, an Apple ID; `announce` false, and no sync tells; and what is printed on the box
        (`product_type`, `color`, `asset_tag`, `description`).
        """
        fields = await _fields(request)
        serials = _serials(fields)
        name = optional(fields, "organization", str) or ""
        server, by = optional(fields, "server", str), optional(fields, "by", str)
        announce = optional(fields, "announce", bool)
        now, said = self._clock.now(), _purchase(fields, Purchase()) != Purchase()
        organization = self._registry.organizations.get(name)
        if by is not None and organization is not None:
            by = enroller(organization, by)
        self._registry.own(
            serials, name, server, now, by=by, announce=True if announce is None else announce
        )
        for serial in serials if said else ():
            record = self._registry.record(serial)
            record.purchase = _purchase(fields, record.purchase or Purchase())
            self._registry.changed(record)
        log.info("devices_assigned", count=len(serials), organization=name, server=server)
        return web.json_response({"assigned": len(serials)})

    async def release(self, request: web.Request) -> web.Response:
        """`POST /portal/devices/release` {serials, replaced}: they belong to nobody any more."""
        fields = await _fields(request)
        serials, replaced = _serials(fields), optional(fields, "replaced", bool) or False
        released = [
            serial
            for serial in serials
            if self._registry.release(serial, self._clock.now(), replaced=replaced)
        ]
        log.info("devices_released", count=len(released))
        return web.json_response({"released": released})

    async def add_provisionally(self, request: web.Request) -> web.Response:
        """`POST /portal/devices/configurator` {organization, server, serials, start}: as if Configurator had added them.

        For 30 days their users may leave, from now or, with `start` `activation`, from the next activation.
        """
        fields = await _fields(request)
        serials, now = _serials(fields), self._clock.now()
        start = optional(fields, "start", str) or "activation"
        if start not in ("activation", "enrollment"):
            raise MalformedMessage("start", "activation or enrollment", start)
        name = required(fields, "organization", str)
        self._registry.own(serials, name, optional(fields, "server", str), now)
        for serial in serials:
            self._registry.record(serial).add_provisionally(
                now, from_activation=start == "activation"
            )
        log.info("devices_added", count=len(serials), organization=name, by="configurator")
        return web.json_response(
            {"devices": [describe(self._registry.record(serial)) for serial in serials]}
        )

    async def describe_device(self, request: web.Request) -> web.Response:
        """`PATCH /portal/devices/{serial}` {asset_tag, color, migration_deadline, replaces, replacement_date, …}."""
        record, fields = self._record(request), await _fields(request)
        purchase = _purchase(fields, record.purchase or Purchase())
        record.describe(purchase, self._clock.now())
        return web.json_response(describe(record))

    def _organization(self, request: web.Request) -> Organization:
        name = request.match_info["organization"]
        organization = self._registry.organizations.get(name)
        if organization is None:
            raise UnknownOwner(f"no organization {name!r} in the portal")
        return organization

    def _record(self, request: web.Request) -> DeviceRecord:
        serial = request.match_info["serial"].upper()
        record = self._registry.get(serial)
        if record is None:
            raise UnknownSerial(serial)
        return record


def _organization(organization: Organization) -> Fields:
    return {
        "name": organization.name,
        "org_id": organization.org_id,
        "org_type": organization.org_type,
        "org_version": organization.org_version,
        "terms_signed": organization.terms_signed,
        "people": [
            {"apple_id": person.apple_id, "role": person.role.value}
            for person in organization.people.values()
        ],
        "servers": list(organization.servers),
    }


def _serials(fields: Fields) -> Sequence[str]:
    serials = []
    for serial in required_list(fields, "serials", str):
        try:
            serials.append(serial_number(serial))
        except ValueError as error:
            raise MalformedMessage("serials", str(error), serial) from error
    return serials


def _purchase(fields: Fields, before: Purchase) -> Purchase:
    """What is said anew; an empty text takes it away."""
    changes: dict[str, Any] = {
        key: value or None
        for key in (*PURCHASE, "replaces")
        if (value := optional(fields, key, str)) is not None
    }
    for key in ("migration_deadline", "replacement_date"):
        moment: datetime | None = time_of(fields, key)
        if moment is not None:
            changes[key] = moment
    return replace(before, **changes)


async def _fields(request: web.Request) -> Fields:
    return present(json_object.loads(await request.read(), "request"))
