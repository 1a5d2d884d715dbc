"""The Store in one SQLite file (mode 0600, WAL), or in memory; `Writer` commits, the `*_table` modules hold the SQL."""

import asyncio
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Self

from mdmserver.store import command_table, device_tables, identity_tables, push_tables
from mdmserver.store.assignment_sqlite import SqliteAssignmentStore
from mdmserver.store.base import (
    Challenge,
    CommandState,
    DeviceRecord,
    DeviceState,
    IssuedCertificate,
    Origin,
    ProfileVersion,
    PushInfo,
    PushTarget,
    QueuedCommand,
    Recorded,
    Report,
    RuleRecord,
    Setup,
    Window,
)
from mdmserver.store.writer import Writer


class SqliteStore:
    """Implements `base.Store`."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._do = writer.do
        self.assignment = SqliteAssignmentStore(writer)

    @classmethod
    async def open(cls, path: Path | None) -> Self:
        """Open or make the file; None keeps everything in memory."""
        return cls(await asyncio.to_thread(Writer, path))

    @property
    def rows_written(self) -> int:
        """Rows written since the store was opened: what a check-in costs is read here."""
        return self._writer.total_changes

    async def close(self) -> None:
        await self._writer.close()

    async def server_id(self) -> str:
        return await self._do(identity_tables.server_id)

    async def keep_profile_version(self, wanted: ProfileVersion) -> ProfileVersion:
        return await self._do(partial(identity_tables.keep_profile_version, wanted=wanted))

    async def profile_version(self, version: int) -> ProfileVersion:
        return await self._do(partial(identity_tables.profile_version, version=version))

    async def open_window(self, window: Window) -> Window:
        return await self._do(partial(identity_tables.open_window, window=window))

    async def reset_windows(self, udid: str) -> int:
        return await self._do(partial(identity_tables.reset_windows, udid=udid))

    async def add_challenge(self, challenge: Challenge) -> None:
        await self._do(partial(identity_tables.add_challenge, challenge=challenge))

    async def challenge(self, secret_sha256: bytes) -> Challenge | None:
        return await self._do(partial(identity_tables.challenge, secret_sha256=secret_sha256))

    async def use_challenge(self, secret_sha256: bytes, certificate: IssuedCertificate) -> bool:
        return await self._do(
            partial(
                identity_tables.use_challenge,
                secret_sha256=secret_sha256,
                certificate=certificate,
            )
        )

    async def add_certificate(self, certificate: IssuedCertificate) -> None:
        await self._do(partial(identity_tables.add_certificate, certificate=certificate))

    async def certificate(self, sha256: bytes) -> IssuedCertificate | None:
        return await self._do(partial(identity_tables.certificate, sha256=sha256))

    async def device(self, udid: str) -> DeviceRecord | None:
        return await self._do(partial(device_tables.device, udid=udid))

    async def devices(self) -> Sequence[DeviceRecord]:
        return await self._do(device_tables.devices)

    async def begin(self, device: DeviceRecord) -> None:
        await self._do(partial(device_tables.begin, record=device))

    async def complete(
        self, udid: str, push: PushInfo, state: DeviceState, at: datetime, setup: Setup
    ) -> None:
        await self._do(
            partial(device_tables.complete, udid=udid, push=push, state=state, at=at, setup=setup)
        )

    async def end(self, udid: str, at: datetime) -> None:
        await self._do(partial(device_tables.end, udid=udid, at=at))

    async def rebind(self, udid: str, certificate: IssuedCertificate) -> None:
        await self._do(partial(device_tables.rebind, udid=udid, certificate=certificate))

    async def touch(self, udid: str, at: datetime) -> None:
        await self._do(partial(device_tables.touch, udid=udid, at=at))

    async def report(self, udid: str, report: Report) -> None:
        await self._do(partial(device_tables.report, udid=udid, said=report))

    async def configured(self, udid: str) -> None:
        await self._do(partial(device_tables.configured, udid=udid))

    async def mark_unenroll(self, udid: str) -> bool:
        return await self._do(partial(device_tables.mark_unenroll, udid=udid))

    async def enqueue(self, command: QueuedCommand) -> bool:
        return await self._do(partial(command_table.enqueue, command=command))

    async def enqueue_device_configured(self, command: QueuedCommand) -> bool:
        return await self._do(partial(command_table.enqueue_device_configured, command=command))

    async def next_command(
        self, udid: str, *, skip: Collection[str], origins: Iterable[Origin], at: datetime
    ) -> QueuedCommand | None:
        return await self._do(
            partial(command_table.next_command, udid=udid, skip=skip, origins=origins, at=at)
        )

    async def record_result(
        self, udid: str, uuid: str, state: CommandState, result: bytes, at: datetime
    ) -> Recorded | None:
        return await self._do(
            partial(
                command_table.record_result,
                udid=udid,
                uuid=uuid,
                state=state,
                result=result,
                at=at,
            )
        )

    async def open_commands(self, udid: str) -> Sequence[QueuedCommand]:
        return await self._do(partial(command_table.open_commands, udid=udid))

    async def withdraw(self, uuids: Iterable[str], at: datetime) -> None:
        await self._do(partial(command_table.withdraw, uuids=tuple(uuids), at=at))

    async def commands(self, udid: str) -> Sequence[QueuedCommand]:
        return await self._do(partial(command_table.of_device, udid=udid))

    async def command(self, uuid: str) -> QueuedCommand | None:
        return await self._do(partial(command_table.one, uuid=uuid))

    async def push_target(self, udid: str) -> PushTarget | None:
        return await self._do(partial(push_tables.target, udid=udid))

    async def push_targets(self) -> Sequence[str]:
        return await self._do(push_tables.targets)

    async def push_waiting(self, queued_before: datetime) -> Sequence[str]:
        return await self._do(partial(push_tables.waiting, queued_before=queued_before))

    async def push_off(self, udid: str, token: bytes, reason: str, at: datetime) -> bool:
        return await self._do(
            partial(push_tables.turn_off, udid=udid, token=token, reason=reason, at=at)
        )

    async def rules(self, udid: str) -> dict[str, RuleRecord]:
        return await self._do(partial(device_tables.rules, udid=udid))

    async def record_rules(self, udid: str, records: Iterable[RuleRecord]) -> None:
        await self._do(partial(device_tables.record_rules, udid=udid, records=tuple(records)))
