"""The registry in one SQLite file (mode 0600): what was acknowledged is there, whatever kills the process.

Changes are collected in `Unsaved` and written by name: one transaction takes the state of everything that changed, and
requests that finish together share it. WAL with synchronous NORMAL: a killed process loses nothing that was committed.
"""

import asyncio
import os
import sqlite3
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import msgspec

from emulator.apple.ledger import Ledger
from emulator.apple.operations import Kind, OperationLog
from emulator.apple.records import Organization, Profile, Server
from emulator.apple.registry import Registry
from emulator.apple.registry_rows import (
    DeviceRow,
    LedgerRow,
    device_row,
    ledger_row,
    restore_device,
    restore_ledger,
)
from emulator.apple.unsaved import Unsaved
from emulator.errors import ConfigurationError

VERSION: Final = "1"
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS ledgers (uuid TEXT PRIMARY KEY, row BLOB NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS profiles (
    uuid TEXT PRIMARY KEY, server TEXT, number INTEGER, fields BLOB NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS devices (serial TEXT PRIMARY KEY, row BLOB NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS operations (
    server TEXT, position INTEGER, kind INTEGER NOT NULL, serial TEXT NOT NULL, at INTEGER NOT NULL,
    PRIMARY KEY (server, position)
) STRICT, WITHOUT ROWID;
"""
_ORGANIZATIONS: Final = "organizations"
_SECRET: Final = "secret"
_SOURCE: Final = "portal_source"  # fingerprint of the file that the portal was read from last
_VERSION: Final = "version"

Statement = tuple[str, list[tuple[Any, ...]]]


class RegistryFile:
    """Opens a file and the registry in it; use as an async context manager."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.registry = Registry(Unsaved())
        self.portal_source: bytes | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="registry-file")
        self._one_at_a_time = asyncio.Lock()
        self._connection: sqlite3.Connection | None = None

    async def __aenter__(self) -> Self:
        await self._run(self._open)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            await self.commit()
        finally:
            await self._run(self._close)
            self._thread.shutdown()

    async def commit(self) -> None:
        """Returns once everything that has changed so far is in the file."""
        if not self.registry.unsaved and not self._one_at_a_time.locked():
            return
        async with self._one_at_a_time:
            unsaved = self.registry.unsaved
            if not unsaved:
                return
            statements = self._statements(unsaved)
            self.registry.unsaved = Unsaved()
            try:
                await self._run(self._write, statements)
            except BaseException:
                self.registry.unsaved.again(unsaved)
                raise

    async def remember_portal(self, source: bytes) -> None:
        """Note which file the portal was read from."""
        self.portal_source = source
        await self._run(self._write, [("REPLACE INTO facts VALUES (?, ?)", [(_SOURCE, source)])])

    # ---- writing ----

    def _statements(self, unsaved: Unsaved) -> list[Statement]:
        registry, encode = self.registry, msgspec.msgpack.encode
        devices, gone, profiles = [], [], {}
        for serial in unsaved.devices:
            record = registry.records.get(serial)
            if record is None:
                gone.append((serial,))
                continue
            devices.append((serial, encode(device_row(record))))
            if record.profile is not None:
                profiles[record.profile.uuid] = record.profile
        ledgers = [
            ledger for uuid in unsaved.ledgers if (ledger := registry.ledgers.get(uuid)) is not None
        ]
        bases = {
            (ledger.uuid, ledger.operations.base)
            for row in unsaved.operations
            if (ledger := registry.ledgers.get(row[0])) is not None
        }
        dropped = [(uuid,) for uuid in unsaved.gone]
        statements: list[Statement] = [
            ("DELETE FROM ledgers WHERE uuid = ?", dropped),
            ("DELETE FROM profiles WHERE server = ?", dropped),
            ("DELETE FROM operations WHERE server = ?", dropped),
            (
                "REPLACE INTO ledgers VALUES (?, ?)",
                [(ledger.uuid, encode(ledger_row(ledger))) for ledger in ledgers],
            ),
            (
                "REPLACE INTO profiles VALUES (?, ?, (SELECT coalesce(max(number), 0) + 1 FROM profiles), ?)",
                [(one.uuid, server, encode(dict(one.fields))) for server, one in unsaved.profiles],
            ),
            (
                "INSERT OR IGNORE INTO profiles VALUES (?, NULL, NULL, ?)",
                [(one.uuid, encode(dict(one.fields))) for one in profiles.values()],
            ),
            ("REPLACE INTO devices VALUES (?, ?)", devices),
            ("DELETE FROM devices WHERE serial = ?", gone),
            ("REPLACE INTO operations VALUES (?, ?, ?, ?, ?)", list(unsaved.operations)),
            (
                "DELETE FROM operations WHERE server = ? AND position < ?",
                [(uuid, base) for uuid, base in bases if base],
            ),
        ]
        if unsaved.organizations:
            facts = encode(list(registry.organizations.values()))
            statements.append(("REPLACE INTO facts VALUES (?, ?)", [(_ORGANIZATIONS, facts)]))
        return statements

    def _write(self, statements: Iterable[Statement]) -> None:
        assert self._connection is not None
        with self._connection:
            for sql, rows in statements:
                if rows:
                    self._connection.executemany(sql, rows)

    # ---- reading ----

    def _open(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.close(os.open(self.path, os.O_CREAT | os.O_RDWR, 0o600))
        connection = sqlite3.connect(self.path)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            connection.executescript(_SCHEMA)
            with connection:
                connection.executemany(
                    "INSERT OR IGNORE INTO facts VALUES (?, ?)",
                    [(_VERSION, VERSION.encode()), (_SECRET, self.registry.secret)],
                )
            self._read(connection)
        except (sqlite3.Error, msgspec.MsgspecError, KeyError, ValueError) as error:
            connection.close()
            raise ConfigurationError(
                str(self.path), [f"is not a registry of this version, or is in use: {error}"]
            ) from error
        except BaseException:
            connection.close()
            raise
        self._connection = connection

    def _read(self, connection: sqlite3.Connection) -> None:
        registry = self.registry
        facts: dict[str, bytes] = dict(connection.execute("SELECT name, value FROM facts"))
        if facts[_VERSION] != VERSION.encode():
            raise ConfigurationError(str(self.path), ["was written by another version"])
        registry.secret = facts[_SECRET]
        self.portal_source = facts.get(_SOURCE)
        for organization in msgspec.msgpack.decode(
            facts.get(_ORGANIZATIONS, b"\x90"), type=list[Organization]
        ):
            registry.organizations[organization.name] = organization
        names: dict[
            str, str
        ] = {}  # one string a serial number, however often it stands in the file
        profiles = self._read_ledgers(connection, names)
        servers: dict[str, tuple[Organization, Server]] = {
            server.uuid: (organization, server) for organization, server in registry.servers()
        }
        decoder = msgspec.msgpack.Decoder(DeviceRow)
        for (row,) in connection.execute("SELECT row FROM devices"):
            device = decoder.decode(row)
            device.serial_number = names.get(device.serial_number, device.serial_number)
            restore_device(registry, device, servers, profiles)
        for uuid, serials in _by_position(registry).items():
            for position, serial in serials:
                registry.ledgers[uuid].roster.add(position, serial)
        registry.unsaved = Unsaved()

    def _read_ledgers(
        self, connection: sqlite3.Connection, names: dict[str, str]
    ) -> dict[str, Profile]:
        registry, decode = self.registry, msgspec.msgpack.decode
        for uuid, row in connection.execute("SELECT uuid, row FROM ledgers"):
            ledger = restore_ledger(decode(row, type=LedgerRow))
            registry.ledgers[uuid] = ledger
            registry.touch(ledger)
        profiles: dict[str, Profile] = {}
        for uuid, server, fields in connection.execute(
            "SELECT uuid, server, fields FROM profiles ORDER BY number"
        ):
            profiles[uuid] = Profile(uuid=uuid, fields=decode(fields))
            if server in registry.ledgers:
                registry.ledgers[server].profiles[uuid] = profiles[uuid]
        for server, position, kind, serial, at in connection.execute(
            "SELECT server, position, kind, serial, at FROM operations ORDER BY server, position"
        ):
            found: Ledger | None = registry.ledgers.get(server)
            if found is not None:
                if not len(found.operations):
                    found.operations = OperationLog(position)
                found.operations.restore(Kind(kind), names.setdefault(serial, serial), at)
        return profiles

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()

    async def _run(self, work: Any, *arguments: Any) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)


def _by_position(registry: Registry) -> dict[str, list[tuple[int, str]]]:
    """The devices of each server, in the order in which they came."""
    found: dict[str, list[tuple[int, str]]] = {}
    for record in registry.records.values():
        if record.server is not None and record.position >= 0:
            found.setdefault(record.server.uuid, []).append((record.position, record.serial_number))
    for serials in found.values():
        serials.sort()
    return found
