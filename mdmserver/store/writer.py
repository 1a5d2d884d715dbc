"""One thread, one SQLite connection: work handed in together is committed together.

What comes in is a function of the connection, what goes out is its result, after the commit that made it durable. Each
piece of work is atomic: when it raises, only its own changes are undone.
"""

import asyncio
import os
import queue
import sqlite3
import threading
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any, Final, TypeVar

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], Any]

MAX_BATCH: Final = 256  # pieces of work that share one commit at most
CACHE_KIB: Final = 16 * 1024


class _Order:
    """A piece of work and who waits for it."""

    __slots__ = ("error", "future", "loop", "result", "work")

    def __init__(self, work: Work, loop: asyncio.AbstractEventLoop) -> None:
        self.work = work
        self.loop = loop
        self.future: asyncio.Future[Any] = loop.create_future()
        self.result: Any = None
        self.error: BaseException | None = None

    def settle(self) -> None:
        if self.future.done():  # the waiter was cancelled; the work is done all the same
            return
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.result)


class Writer:
    """The only door to the database file."""

    def __init__(self, path: Path | None) -> None:
        """Open (and migrate) the file, or a database in memory; blocking, so off the event loop."""
        self._connection = _connect(path)
        self._orders: queue.SimpleQueue[_Order | None] = queue.SimpleQueue()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="mdmserver-store", daemon=True)
        self._thread.start()

    @property
    def total_changes(self) -> int:
        """Rows written since the file was opened."""
        return self._connection.total_changes

    async def do(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work` in a transaction of its own and return its result once that is committed."""
        if self._closed:
            raise RuntimeError("the store is closed")
        order = _Order(work, asyncio.get_running_loop())
        self._orders.put(order)
        result: T = await order.future
        return result

    async def close(self) -> None:
        """Finish what was handed in and close the file."""
        if self._closed:
            return
        self._closed = True
        self._orders.put(None)
        await asyncio.to_thread(self._thread.join)

    def _run(self) -> None:
        try:
            while (first := self._orders.get()) is not None:
                batch, last = self._collect(first)
                self._commit(batch)
                _tell(batch)
                if last:
                    return
        finally:
            self._connection.close()

    def _collect(self, first: _Order) -> tuple[list[_Order], bool]:
        """What else waits already; True when the end was among it."""
        batch = [first]
        while len(batch) < MAX_BATCH:
            try:
                order = self._orders.get_nowait()
            except queue.Empty:
                break
            if order is None:
                return batch, True
            batch.append(order)
        return batch, False

    def _commit(self, batch: list[_Order]) -> None:
        """Run a batch; a disk that fails the commit fails everyone in it."""
        connection = self._connection
        try:
            connection.execute("BEGIN IMMEDIATE")
            for order in batch:
                connection.execute("SAVEPOINT work")
                try:
                    order.result = order.work(connection)
                except Exception as error:
                    order.error = error
                    connection.execute("ROLLBACK TO work")
                connection.execute("RELEASE work")
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            for order in batch:
                order.error = error


def _tell(batch: list[_Order]) -> None:
    by_loop: dict[asyncio.AbstractEventLoop, list[_Order]] = {}
    for order in batch:
        by_loop.setdefault(order.loop, []).append(order)
    for loop, orders in by_loop.items():
        if not loop.is_closed():
            loop.call_soon_threadsafe(_settle, orders)


def _settle(orders: list[_Order]) -> None:
    for order in orders:
        order.settle()


def _connect(path: Path | None) -> sqlite3.Connection:
    if path is not None:
        # Made before SQLite sees it, so that neither it nor its WAL is ever readable by others.
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        path.chmod(0o600)
    connection = sqlite3.connect(
        path or ":memory:", isolation_level=None, check_same_thread=False, cached_statements=256
    )
    try:
        connection.row_factory = sqlite3.Row
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        connection.execute("PRAGMA busy_timeout = 5000")
        migrate(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def migrate(connection: sqlite3.Connection) -> None:
    """Bring the schema up to the newest numbered file; each file applies whole or not at all."""
    folder = resources.files("mdmserver.store") / "migrations"
    files = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".sql"))
    present = int(connection.execute("PRAGMA user_version").fetchone()[0])
    newest = int(files[-1].partition("_")[0])
    if present > newest:
        raise sqlite3.DatabaseError(
            f"the store has schema {present}, this server knows {newest}: use the newer server"
        )
    for name in files:
        number = int(name.partition("_")[0])
        if number <= present:
            continue
        script = (folder / name).read_text(encoding="utf-8")
        try:
            # executescript commits what is open, so the transaction is part of the script itself.
            connection.executescript(
                f"BEGIN IMMEDIATE;\n{script}\nPRAGMA user_version = {number};\nCOMMIT;"
            )
        except sqlite3.Error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
