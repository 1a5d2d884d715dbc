"""The AssignmentStore in the server's SQLite file: each method hands one function of the tables to the `Writer`."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import partial

from mdmserver.store import (
    assignment_device_table,
    assignment_sync_tables,
    assignment_token_tables,
)
from mdmserver.store.assignment_base import (
    Account,
    AssignedProfile,
    Counts,
    Credentials,
    ListedDevice,
    Listing,
    SyncKind,
    SyncRecord,
    SyncState,
    Token,
    TokenKey,
    Trigger,
    Trouble,
)
from mdmserver.store.writer import Writer


class SqliteAssignmentStore:
    """Implements `assignment_base.AssignmentStore`."""

    def __init__(self, writer: Writer) -> None:
        self._do = writer.do

    async def add_key(self, key: TokenKey) -> None:
        await self._do(partial(assignment_token_tables.add_key, key=key))

    async def key(self, key_id: str) -> TokenKey | None:
        return await self._do(partial(assignment_token_tables.key, key_id=key_id))

    async def key_downloaded(self, key_id: str, at: datetime) -> None:
        await self._do(partial(assignment_token_tables.key_downloaded, key_id=key_id, at=at))

    async def drop_key(self, key_id: str) -> bool:
        return await self._do(partial(assignment_token_tables.drop_key, key_id=key_id))

    async def add_token(self, token: Token, key_id: str) -> None:
        await self._do(partial(assignment_token_tables.add_token, token=token, key_id=key_id))

    async def renew_token(
        self,
        token_id: str,
        credentials: Credentials,
        *,
        identity_pem: bytes,
        key_id: str | None,
        apple_id: str | None,
        at: datetime,
    ) -> None:
        await self._do(
            partial(
                assignment_token_tables.renew_token,
                token_id=token_id,
                credentials=credentials,
                identity_pem=identity_pem,
                key_id=key_id,
                apple_id=apple_id,
                at=at,
            )
        )

    async def token(self, token_id: str) -> Token | None:
        return await self._do(partial(assignment_token_tables.token, token_id=token_id))

    async def tokens(self) -> Sequence[Token]:
        return await self._do(assignment_token_tables.tokens)

    async def describe_token(
        self, token_id: str, *, name: str, description: str, apple_id: str
    ) -> None:
        await self._do(
            partial(
                assignment_token_tables.describe_token,
                token_id=token_id,
                name=name,
                description=description,
                apple_id=apple_id,
            )
        )

    async def set_account(self, token_id: str, account: Account) -> None:
        await self._do(
            partial(assignment_token_tables.set_account, token_id=token_id, account=account)
        )

    async def set_trouble(self, token_id: str, trouble: Trouble | None) -> None:
        await self._do(
            partial(assignment_token_tables.set_trouble, token_id=token_id, trouble=trouble)
        )

    async def set_default_profile(self, token_id: str, uuid: str | None) -> None:
        await self._do(
            partial(assignment_token_tables.set_default_profile, token_id=token_id, uuid=uuid)
        )

    async def delete_token(self, token_id: str) -> None:
        await self._do(partial(assignment_token_tables.delete_token, token_id=token_id))

    async def add_profile(self, profile: AssignedProfile) -> None:
        await self._do(partial(assignment_token_tables.add_profile, profile=profile))

    async def profile(self, token_id: str, uuid: str) -> AssignedProfile | None:
        return await self._do(
            partial(assignment_token_tables.profile, token_id=token_id, uuid=uuid)
        )

    async def profiles(self, token_id: str) -> Sequence[AssignedProfile]:
        return await self._do(partial(assignment_token_tables.profiles, token_id=token_id))

    async def drop_profile(self, token_id: str, uuid: str) -> None:
        await self._do(partial(assignment_token_tables.drop_profile, token_id=token_id, uuid=uuid))

    async def begin_sync(
        self,
        token_id: str,
        kind: SyncKind,
        trigger: Trigger,
        *,
        at: datetime,
        resumed: bool,
        fresh: bool,
    ) -> SyncRecord:
        return await self._do(
            partial(
                assignment_sync_tables.begin_sync,
                token_id=token_id,
                kind=kind,
                trigger=trigger,
                at=at,
                resumed=resumed,
                fresh=fresh,
            )
        )

    async def store_page(
        self,
        sync_id: int,
        token_id: str,
        devices: Sequence[ListedDevice],
        *,
        kind: SyncKind,
        cursor: str,
        at: datetime,
    ) -> None:
        await self._do(
            partial(
                assignment_sync_tables.store_page,
                sync_id=sync_id,
                token_id=token_id,
                devices=devices,
                kind=kind,
                cursor=cursor,
                at=at,
            )
        )

    async def end_full(self, token_id: str, at: datetime) -> int:
        return await self._do(partial(assignment_sync_tables.end_full, token_id=token_id, at=at))

    async def end_sync(
        self,
        sync_id: int,
        token_id: str,
        state: SyncState,
        *,
        at: datetime,
        error: str | None,
        force_full: bool,
        drop_cursor: bool = False,
    ) -> None:
        await self._do(
            partial(
                assignment_sync_tables.end_sync,
                sync_id=sync_id,
                token_id=token_id,
                state=state,
                at=at,
                error=error,
                force_full=force_full,
                drop_cursor=drop_cursor,
            )
        )

    async def interrupt_syncs(self, at: datetime) -> int:
        return await self._do(partial(assignment_sync_tables.interrupt_syncs, at=at))

    async def syncs(self, token_id: str, limit: int) -> Sequence[SyncRecord]:
        return await self._do(partial(assignment_sync_tables.syncs, token_id=token_id, limit=limit))

    async def listed_devices(
        self, token_id: str, *, listing: Listing | None, after: str, limit: int
    ) -> Sequence[ListedDevice]:
        return await self._do(
            partial(
                assignment_device_table.listed_devices,
                token_id=token_id,
                listing=listing,
                after=after,
                limit=limit,
            )
        )

    async def listed_device(self, token_id: str, serial: str) -> ListedDevice | None:
        return await self._do(
            partial(assignment_device_table.listed_device, token_id=token_id, serial=serial)
        )

    async def counts(self, token_id: str) -> Counts:
        return await self._do(partial(assignment_device_table.counts, token_id=token_id))

    async def without_profile(self, token_id: str, *, after: str, limit: int) -> Sequence[str]:
        return await self._do(
            partial(
                assignment_device_table.without_profile,
                token_id=token_id,
                after=after,
                limit=limit,
            )
        )

    async def record_assignment(
        self, token_id: str, uuid: str, results: Mapping[str, str], at: datetime
    ) -> None:
        await self._do(
            partial(
                assignment_device_table.record_assignment,
                token_id=token_id,
                uuid=uuid,
                results=results,
                at=at,
            )
        )

    async def record_unassignment(
        self, token_id: str, results: Mapping[str, str], at: datetime
    ) -> None:
        await self._do(
            partial(
                assignment_device_table.record_unassignment,
                token_id=token_id,
                results=results,
                at=at,
            )
        )

    async def record_disowning(
        self, token_id: str, results: Mapping[str, str], at: datetime
    ) -> None:
        await self._do(
            partial(
                assignment_device_table.record_disowning,
                token_id=token_id,
                results=results,
                at=at,
            )
        )

    async def delete_listed(self, token_id: str, serial: str, at: datetime) -> bool:
        return await self._do(
            partial(assignment_device_table.delete_listed, token_id=token_id, serial=serial, at=at)
        )

    async def purge_removed(self, before: datetime) -> int:
        return await self._do(partial(assignment_device_table.purge_removed, before=before))
