"""The registry: one truth for every service of Apple's side about every serial number.

A record says what the factory knows (hardware facts and the fingerprints of the two device keys), who owns the device and
which profile is assigned to it, and where its activation stands. A serial number may be owned before its device exists.
Each MDM server has a ledger: token, profiles, and the log of what happened to its devices. All of it is in memory, under a
kilobyte a device; with a file (`registry_file`) every change is noted, and nothing is acknowledged before it is there.
"""

import secrets
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Final

import structlog

from emulator.apple.claims import RegistryConflict, find_conflicts, fingerprint
from emulator.apple.ledger import ADVISED_DEVICES, MAX_PROFILES, IssuedToken, Ledger
from emulator.apple.operations import Kind
from emulator.apple.records import (
    ActivationState,
    DeviceRecord,
    HardwareFacts,
    Organization,
    Profile,
    Server,
    UnassignStatus,
)
from emulator.apple.unsaved import Unsaved
from emulator.errors import EmulatorError

log = structlog.get_logger()

MAX_SERVERS: Final = 2000  # tokens per organisation (rule 31)


class UnknownOwner(EmulatorError):
    """No organisation or server of the portal goes by this name."""


class LimitReached(EmulatorError):
    """One more would be more than Apple takes."""

    def __init__(self, what: str, limit: int) -> None:
        self.what = what
        self.limit = limit
        super().__init__(f"no more than {limit} {what}")


class Registry:
    """Records by serial number, with indexes by UDID and by key; organisations and servers by name, ledgers by UUID."""

    def __init__(self, unsaved: Unsaved | None = None) -> None:
        self.records: dict[str, DeviceRecord] = {}
        self.organizations: dict[str, Organization] = {}
        self.ledgers: dict[str, Ledger] = {}
        self.unassign_status: UnassignStatus = "removed"
        self.moved_as_modified = (
            False  # a device that another server gives up is `modified`, never `added`
        )
        self.unsaved = Unsaved(kept=False) if unsaved is None else unsaved
        self.secret = secrets.token_bytes(32)  # seals cursors and session tokens
        self._serials_by_udid: dict[str, str] = {}
        self._serials_by_key: dict[bytes, str] = {}
        self._ledgers_by_key: dict[str, str] = {}

    # ---- devices ----

    def get(self, serial_number: str) -> DeviceRecord | None:
        return self.records.get(serial_number)

    def provisioned(self, serial_number: str, udid: str) -> DeviceRecord | None:
        """The record of a device that exists, when both identifiers are its own."""
        record = self.records.get(serial_number)
        if record is None or record.hardware is None or record.hardware.udid != udid:
            return None
        return record

    def by_udid(self, udid: str) -> DeviceRecord | None:
        serial = self._serials_by_udid.get(udid)
        return None if serial is None else self.records[serial]

    def by_key(self, spki: bytes) -> DeviceRecord | None:
        """The device to which the factory gave this key, FK or AK, by its SubjectPublicKeyInfo."""
        serial = self._serials_by_key.get(fingerprint(spki))
        return None if serial is None else self.records[serial]

    def devices(self) -> Iterator[DeviceRecord]:
        """Every record whose device exists."""
        return (record for record in self.records.values() if record.hardware is not None)

    def check(self, batch: Iterable[HardwareFacts]) -> None:
        """Raise RegistryConflict, listing everything in `batch` that belongs to another device already."""
        conflicts = find_conflicts(self.records, self._serials_by_udid, self._serials_by_key, batch)
        if conflicts:
            raise RegistryConflict(conflicts)

    def provision(self, facts: HardwareFacts) -> DeviceRecord:
        """Write down a device that passed `check`; the same one again renews what may change, such as its OS."""
        record = self.record(facts.serial_number)
        record.hardware = facts
        self.index(record)
        self.changed(record)
        return record

    def index(self, record: DeviceRecord) -> None:
        """Make the device found by its UDID and its keys."""
        if record.hardware is not None:
            serial = record.serial_number
            self._serials_by_udid[record.hardware.udid] = serial
            self._serials_by_key[record.hardware.factory_key] = serial
            self._serials_by_key[record.hardware.attestation_key] = serial

    def record(self, serial_number: str) -> DeviceRecord:
        """The record of a serial number, made where there is none."""
        record = self.records.get(serial_number)
        if record is None:
            record = DeviceRecord(serial_number=serial_number, watcher=self)
            self.records[serial_number] = record
        return record

    def remove(self, serial_number: str) -> bool:
        """Forget the device; its owner, if it has one, keeps the serial number. False: there is no such device."""
        record = self.records.get(serial_number)
        if record is None or record.hardware is None:
            return False
        del self._serials_by_udid[record.hardware.udid]
        del self._serials_by_key[record.hardware.factory_key]
        del self._serials_by_key[record.hardware.attestation_key]
        # Whoever still holds the record, such as a waiting activation, sees that the device is gone.
        record.hardware = None
        record.activation_state = ActivationState.UNACTIVATED
        record.activation_lock = None
        if record.organization is None:
            del self.records[serial_number]
        self.changed(record)
        return True

    # ---- owners ----

    def own(
        self,
        serial_numbers: Iterable[str],
        organization: str,
        server: str | None,
        now: datetime,
        *,
        by: str | None = None,
        announce: bool = True,
    ) -> None:
        """Assign serial numbers to a server of an organisation, or to the organisation alone. Raises UnknownOwner.

        `announce` False: no sync tells of those that come, only a full fetch lists them.
        """
        owner = self.organizations.get(organization)
        if owner is None:
            raise UnknownOwner(f"no organization {organization!r} in the portal")
        target = None if server is None else owner.servers.get(server)
        if server is not None and target is None:
            raise UnknownOwner(f"no server {server!r} in organization {organization!r}")
        for serial in serial_numbers:
            self._move(self.record(serial), owner, target, now, by=by, announce=announce)

    def release(self, serial_number: str, now: datetime, *, replaced: bool = False) -> bool:
        """The device belongs to nobody any more, and its last server's next sync says `deleted`. False: it had no owner."""
        record = self.records.get(serial_number)
        if record is None or record.organization is None:
            return False
        self._move(record, None, None, now, leaving=Kind.REPLACED if replaced else Kind.DELETED)
        record.provisional_until, record.provisional_from_activation = None, False
        if record.hardware is None:
            del self.records[serial_number]
        return True

    def _move(
        self,
        record: DeviceRecord,
        organization: Organization | None,
        server: Server | None,
        now: datetime,
        *,
        by: str | None = None,
        announce: bool = True,
        leaving: Kind = Kind.DELETED,
    ) -> None:
        """Give the device an owner; a profile that its server assigned to it stays while the server stays."""
        before = record.server
        same = before is not None and server is not None and before.uuid == server.uuid
        if before is not None and not same:
            self._leave(record, before, now, leaving)
        record.organization, record.server = organization, server
        default = server.profile if server else None
        if not same:
            record.forget_profile()
            if default is not None:
                record.give(default, now)  # before it joins: the sync says `added`, and no more
            record.assigned_date = record.assigned_by = None
            if server is not None and organization is not None:
                record.assigned_date, record.assigned_by = now, by or organization.admin_id
                self._join(record, server, now, before, announce=announce)
        elif (
            before is not None and before.profile != default
        ):  # the portal's own profile is another
            if default is not None and (
                record.profile is None or record.profile.uuid != default.uuid
            ):
                record.give(default, now)
            elif default is None and record.profile == before.profile:
                record.take(now, "empty")
        self.changed(record)

    def _join(
        self,
        record: DeviceRecord,
        server: Server,
        now: datetime,
        before: Server | None,
        *,
        announce: bool,
    ) -> None:
        kind = Kind.ADDED if announce else Kind.SILENT
        if announce and before is not None and self.moved_as_modified:
            kind = Kind.MODIFIED
        ledger = self.ledgers[server.uuid]
        self._noted(ledger, ledger.join(record, now, kind), record, now)
        if len(ledger.roster) == ADVISED_DEVICES + 1:
            log.warning("server_over_limit", server=server.name, limit=ADVISED_DEVICES)

    def _leave(self, record: DeviceRecord, server: Server, now: datetime, kind: Kind) -> None:
        ledger = self.ledgers.get(server.uuid)
        if ledger is None:  # left the portal with its server
            record.position = -1
        else:
            self._noted(ledger, ledger.leave(record, now, kind), record, now)

    def replace_owners(
        self,
        organizations: Iterable[Organization],
        owned: Mapping[str, tuple[str, str | None]],
        now: datetime,
    ) -> None:
        """Make `owned` (serial number -> organisation and server names) the whole truth about owners.

        A server that stays keeps its token, its profiles and its log. Raises LimitReached.
        """
        new = {organization.name: organization for organization in organizations}
        for organization in new.values():
            _check_servers(organization)
        self.organizations = new
        self._open_ledgers()
        for serial, record in list(self.records.items()):
            if serial in owned:
                continue
            self._move(record, None, None, now)
            if record.hardware is None:
                del self.records[serial]
        for serial, (owner, server) in owned.items():
            self.own([serial], owner, server, now)
        for uuid in self.ledgers.keys() - {server.uuid for _, server in self.servers()}:
            self._drop(self.ledgers[uuid])

    # ---- organisations and servers ----

    def servers(self) -> Iterator[tuple[Organization, Server]]:
        """Every server of the portal."""
        for organization in self.organizations.values():
            for server in organization.servers.values():
                yield organization, server

    def server(self, uuid: str) -> tuple[Organization, Server, Ledger]:
        """A server by its UUID. Raises UnknownOwner."""
        ledger = self.ledgers.get(uuid)
        owner = None if ledger is None else self.organizations.get(ledger.organization)
        if ledger is None or owner is None:
            raise UnknownOwner(f"no server with UUID {uuid:.64}")
        return owner, owner.servers[ledger.name], ledger

    def ledger_by_key(self, consumer_key: str) -> Ledger | None:
        """The server that has, or had, this consumer key."""
        uuid = self._ledgers_by_key.get(consumer_key)
        return None if uuid is None else self.ledgers.get(uuid)

    def set_organization(self, organization: Organization) -> None:
        """A new organisation, or one anew with the same servers."""
        before = self.organizations.get(organization.name)
        self.organizations[organization.name] = organization
        if before is not None and before.facts != organization.facts:
            for record in self.records.values():  # cloud configurations say who owns the device
                if record.organization is not None and record.organization.name == before.name:
                    record.organization = organization
        self.unsaved.organizations = True

    def add_server(self, organization: str, server: Server, **facts: object) -> Ledger:
        """Give an organisation one more server, or one of its servers anew. Raises UnknownOwner and LimitReached.

        `facts` go into a new ledger.
        """
        owner = self.organizations.get(organization)
        if owner is None:
            raise UnknownOwner(f"no organization {organization!r} in the portal")
        owner = replace(owner, servers={**owner.servers, server.name: server})
        _check_servers(owner)
        self.set_organization(owner)
        self._open_ledgers()
        ledger = self.ledgers[server.uuid]
        for key, value in facts.items():
            setattr(ledger, key, value)
        self.touch(ledger)
        return ledger

    def remove_server(self, uuid: str, now: datetime) -> None:
        """Take a server out of the portal; its devices stay with the organisation. Raises UnknownOwner."""
        owner, server, ledger = self.server(uuid)
        self.own(list(ledger.roster), owner.name, None, now)
        servers = {name: one for name, one in owner.servers.items() if name != server.name}
        self.set_organization(replace(owner, servers=servers))
        self._drop(ledger)

    def _open_ledgers(self) -> None:
        for organization, server in self.servers():
            ledger = self.ledgers.get(server.uuid)
            if ledger is None:
                ledger = Ledger(uuid=server.uuid, organization=organization.name, name=server.name)
                self.ledgers[server.uuid] = ledger
            elif (ledger.organization, ledger.name) == (organization.name, server.name):
                continue
            ledger.organization, ledger.name = organization.name, server.name
            self.touch(ledger)
        self.unsaved.organizations = True

    def _drop(self, ledger: Ledger) -> None:
        for key in ledger.consumer_keys:
            self._ledgers_by_key.pop(key, None)
        del self.ledgers[ledger.uuid]
        self.unsaved.dropped(ledger.uuid)

    # ---- what the assignment API changes ----

    def issue(self, ledger: Ledger, token: IssuedToken) -> None:
        """This is the server's token from now on; the one before is over at once."""
        ledger.issue(token)
        self.touch(ledger)

    def define(self, ledger: Ledger, profile: Profile) -> None:
        """One more profile of a server. Raises LimitReached."""
        if len(ledger.profiles) >= MAX_PROFILES:
            raise LimitReached("profiles per server", MAX_PROFILES)
        ledger.profiles[profile.uuid] = profile
        self.unsaved.profile(ledger, profile)

    def accessible(self, ledger: Ledger, serial_number: str) -> DeviceRecord | None:
        """The device, if it is assigned to this server."""
        record = self.records.get(serial_number)
        if record is None or record.server is None or record.server.uuid != ledger.uuid:
            return None
        return record

    def touch(self, ledger: Ledger) -> None:
        """Something about a server changed."""
        for key in ledger.consumer_keys:
            self._ledgers_by_key[key] = ledger.uuid
        self.unsaved.ledgers.add(ledger.uuid)

    # ---- Watcher ----

    def changed(self, record: DeviceRecord) -> None:
        self.unsaved.devices.add(record.serial_number)

    def modified(self, record: DeviceRecord, now: datetime) -> None:
        """The next sync of the device's server says so."""
        ledger = None if record.server is None else self.ledgers.get(record.server.uuid)
        if ledger is not None and record.position >= 0:
            position = ledger.operations.append(Kind.MODIFIED, record.serial_number, now)
            self._noted(ledger, (position, Kind.MODIFIED), record, now)

    def _noted(
        self, ledger: Ledger, entry: tuple[int, Kind], record: DeviceRecord, now: datetime
    ) -> None:
        self.unsaved.operation(ledger, entry, record.serial_number, now)


def _check_servers(organization: Organization) -> None:
    if len(organization.servers) > MAX_SERVERS:
        raise LimitReached(f"MDM servers in {organization.name}", MAX_SERVERS)
