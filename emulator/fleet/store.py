"""The fleet's memory: one SQLite file, one row a device, so that a killed run goes on where it was.

One writer thread takes what has queued up and commits it as one transaction; `save` returns only when its row is on
disk (WAL, synchronous NORMAL: a killed process loses nothing that was committed).
"""

import asyncio
import os
import queue
import sqlite3
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from emulator.errors import ConfigurationError

SCHEMA_VERSION: Final = 1
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS fleet (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS devices (
    serial TEXT PRIMARY KEY,
    position INTEGER NOT NULL,
    udid TEXT NOT NULL UNIQUE,
    state TEXT NOT NULL,
    outcome TEXT,
    error TEXT,
    snapshot BLOB NOT NULL
) STRICT;
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceRow:
    """One device at rest."""

    serial: str
    position: int  # its place in the fleet, from 0
    udid: str
    state: str  # name of its State
    outcome: str | None = None  # how its last run ended; None: not yet
    error: str | None = None
    snapshot: bytes


Work = Callable[[sqlite3.Connection], Any]


class FleetStore:
    """Opens a store file (mode 0600); use as an async context manager."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._work: queue.SimpleQueue[tuple[Work, asyncio.Future[Any]] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        connection = await asyncio.to_thread(self._open)
        self._thread = threading.Thread(target=self._write, args=(connection,), name="fleet-store")
        self._thread.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._work.put(None)
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)

    async def save(self, row: DeviceRow) -> None:
        """Write one device; returns when it is committed."""
        await self._submit(lambda connection: _save(connection, row))

    async def save_all(self, rows: list[DeviceRow]) -> None:
        """Write many devices in one transaction: all or none."""

        def work(connection: sqlite3.Connection) -> None:
            for row in rows:
                _save(connection, row)

        await self._submit(work)

    async def finish(self, serial: str, outcome: str, error: str | None) -> None:
        """Note how a device's run ended."""
        await self._submit(
            lambda connection: connection.execute(
                "UPDATE devices SET outcome = ?, error = ? WHERE serial = ?",
                (outcome, error, serial),
            )
        )

    async def rows(self) -> list[DeviceRow]:
        """Every device in fleet order."""
        return list(await self._submit(lambda connection: list(_rows(connection))))

    async def find(self, key: str) -> DeviceRow | None:
        """The device with this serial number or UDID."""
        found = await self._submit(
            lambda connection: list(_rows(connection, "WHERE serial = ? OR udid = ?", (key, key)))
        )
        return found[0] if found else None

    async def remember(self, **facts: str) -> None:
        """Keep facts of the whole fleet, such as its server's URL."""

        def work(connection: sqlite3.Connection) -> None:
            connection.executemany(
                "INSERT INTO fleet VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
                facts.items(),
            )

        await self._submit(work)

    async def facts(self) -> dict[str, str]:
        """What `remember` kept."""
        return dict(
            await self._submit(
                lambda connection: connection.execute("SELECT key, value FROM fleet").fetchall()
            )
        )

    async def _submit(self, work: Work) -> Any:
        if self._loop is None:
            raise RuntimeError("the store is not open")
        done: asyncio.Future[Any] = self._loop.create_future()
        self._work.put((work, done))
        return await done

    def _open(self) -> sqlite3.Connection:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            os.close(os.open(self.path, os.O_CREAT | os.O_RDWR, 0o600))
            # Opened here, used by the writer thread alone.
            connection = sqlite3.connect(
                self.path, isolation_level=None, check_same_thread=False, timeout=0.2
            )
        except (OSError, sqlite3.Error) as error:
            raise ConfigurationError(str(self.path), [f"cannot be opened: {error}"]) from error
        try:
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version not in (0, SCHEMA_VERSION):
                raise ConfigurationError(
                    str(self.path), [f"was written by another version (schema {version})"]
                )
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            # One process owns a fleet: two would each move the same devices.
            connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            connection.executescript(
                f"BEGIN IMMEDIATE;{_SCHEMA}PRAGMA user_version = {SCHEMA_VERSION};COMMIT;"
            )
        except sqlite3.OperationalError as error:
            connection.close()
            reason = "is in use by another process" if "locked" in str(error) else str(error)
            raise ConfigurationError(str(self.path), [reason]) from error
        except sqlite3.DatabaseError as error:
            connection.close()
            raise ConfigurationError(str(self.path), ["is not a fleet store"]) from error
        except ConfigurationError:
            connection.close()
            raise
        return connection

    def _write(self, connection: sqlite3.Connection) -> None:
        """The writer thread: everything that waits becomes one transaction."""
        open_ = True
        while open_:
            batch: list[tuple[Work, asyncio.Future[Any]]] = []
            item = self._work.get()
            while True:
                if item is None:
                    open_ = False
                else:
                    batch.append(item)
                try:
                    item = self._work.get_nowait()
                except queue.Empty:
                    break
            self._commit(connection, batch)
        connection.close()

    def _commit(
        self, connection: sqlite3.Connection, batch: list[tuple[Work, asyncio.Future[Any]]]
    ) -> None:
        if not batch:
            return
        answers: list[tuple[asyncio.Future[Any], Any, BaseException | None]] = []
        try:
            connection.execute("BEGIN IMMEDIATE")
            for work, done in batch:
                connection.execute("SAVEPOINT one")
                try:
                    answers.append((done, work(connection), None))
                    connection.execute("RELEASE one")
                except sqlite3.Error as error:
                    connection.execute("ROLLBACK TO one")
                    connection.execute("RELEASE one")
                    answers.append((done, None, error))
            connection.execute("COMMIT")
        except sqlite3.Error as error:  # the disk is full, say: nobody's row is safe
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            answers = [(done, None, error) for _, done in batch]
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(_deliver, answers)


def _deliver(answers: list[tuple[asyncio.Future[Any], Any, BaseException | None]]) -> None:
    for done, value, error in answers:
        if done.cancelled():
            continue
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(value)


def _save(connection: sqlite3.Connection, row: DeviceRow) -> None:
    connection.execute(
        """INSERT INTO devices (serial, position, udid, state, outcome, error, snapshot)
        VALUES (?, ?, ?, ?, ?, ?, ?)
        ON CONFLICT (serial) DO UPDATE SET state = excluded.state, outcome = excluded.outcome,
            error = excluded.error, snapshot = excluded.snapshot""",
        (
            row.serial,
            row.position,
            row.udid,
            row.state,
            row.outcome,
            row.error,
            row.snapshot,
        ),
    )


def _rows(
    connection: sqlite3.Connection, where: str = "", arguments: tuple[str, ...] = ()
) -> Iterator[DeviceRow]:
    query = f"SELECT serial, position, udid, state, outcome, error, snapshot FROM devices {where} ORDER BY position"
    for serial, position, udid, state, outcome, error, snapshot in connection.execute(
        query, arguments
    ):
        yield DeviceRow(
            serial=serial,
            position=position,
            udid=udid,
            state=state,
            outcome=outcome,
            error=error,
            snapshot=snapshot,
        )
