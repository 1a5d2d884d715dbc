"""One sync of one token, page by page, within its 15 minutes (rules 105-110; apple-services.md 4.6, 4.7).

Comes in: a token and a plan. Goes out: the stored list of devices, and a record of how the sync ended. Each page is stored
together with the cursor behind it, so that whatever ends a sync, the next one goes on from what is stored.
"""

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, Final

import structlog

from certs.clock import Clock
from mdmserver.assignment_answers import Page, account_of, page_of
from mdmserver.assignment_apple import AppleSide
from mdmserver.assignment_client import AssignmentClient
from mdmserver.assignment_errors import (
    AppleError,
    AppleRefused,
    StuckCursor,
    WrongServer,
)
from mdmserver.assignment_rules import MAX_DEVICES, SYNC_LIMIT, Plan
from mdmserver.background import Working
from mdmserver.store.assignment_base import (
    Account,
    AssignmentStore,
    SyncKind,
    SyncState,
    Token,
    Trigger,
)

log = structlog.get_logger()

PAGE_SIZE: Final = 1000
MAX_EMPTY_PAGES: Final = 3  # in a row, although more is said to follow
LOST: Final = ("INVALID_CURSOR", "EXPIRED_CURSOR", "CURSOR_REQUIRED")


class OutOfTime(Exception):
    """The sync's time is over."""


@dataclass(frozen=True, slots=True)
class Ending:
    """How a sync ended, and what that means for the next one."""

    state: SyncState
    error: str | None = None
    force_full: bool = False
    drop_cursor: bool = False
    full_at_once: bool = False  # the cursor is lost: a full sync follows now


class TokenSync:
    """Runs syncs; who calls sees to it that a token has one at a time."""

    def __init__(self, store: AssignmentStore, apple: AppleSide, clock: Clock) -> None:
        self._store = store
        self._apple = apple
        self._clock = clock

    async def run(self, token_id: str, plan: Plan, trigger: Trigger) -> Ending:
        """Sync, and write down how it ended; never raises for what Apple answers."""
        with Working(self._clock) as working:
            return await self._run(token_id, plan, trigger, working)

    async def _run(self, token_id: str, plan: Plan, trigger: Trigger, working: Working) -> Ending:
        record = await self._store.begin_sync(
            token_id,
            plan.kind,
            trigger,
            at=self._clock.now(),
            resumed=plan.resumed,
            fresh=plan.fresh,
        )
        log.info(
            "sync_started", token=token_id, kind=plan.kind, trigger=trigger, resumed=plan.resumed
        )
        try:
            await self._in_time(self._pages(token_id, plan.kind, record.sync_id), working)
            ending = Ending(SyncState.DONE)
        except OutOfTime:
            ending = Ending(
                SyncState.TIMED_OUT,
                f"not finished after {SYNC_LIMIT.total_seconds() / 60:g} minutes",
                force_full=plan.kind == "delta",
            )
        except AppleError as error:
            ending = _failed(plan.kind, error)
        except Exception as error:
            log.exception("sync_error", token=token_id)
            ending = Ending(
                SyncState.FAILED, f"internal error: {error}", force_full=plan.kind == "delta"
            )
        await self._store.end_sync(
            record.sync_id,
            token_id,
            ending.state,
            at=self._clock.now(),
            error=ending.error,
            force_full=ending.force_full,
            drop_cursor=ending.drop_cursor,
        )
        log.info(
            "sync_ended",
            token=token_id,
            kind=plan.kind,
            state=ending.state.value,
            error=ending.error,
        )
        return ending

    async def _in_time(self, pages: Coroutine[Any, Any, None], working: Working) -> None:
        """Bound by the injected clock. Raises OutOfTime."""
        asking = asyncio.create_task(pages)
        limit = asyncio.create_task(self._clock.sleep(SYNC_LIMIT.total_seconds()))
        try:
            with working.paused():
                await asyncio.wait((asking, limit), return_when=asyncio.FIRST_COMPLETED)
            if not asking.done():
                raise OutOfTime
        finally:
            asking.cancel()
            limit.cancel()
            await asyncio.gather(asking, limit, return_exceptions=True)
        asking.result()

    async def _pages(self, token_id: str, kind: SyncKind, sync_id: int) -> None:
        with Working(self._clock):
            token = await self._store.token(token_id)
            if token is None:
                return
            async with self._apple.client(token, patient=True) as client:
                await self._account(token, client)
                if kind == "full":
                    await self._full(token, client, sync_id)
                else:
                    await self._delta(token, client, sync_id)
            await self._count(token_id)

    async def _count(self, token_id: str) -> None:
        counts = await self._store.counts(token_id)
        if counts.listed > MAX_DEVICES:
            log.warning(
                "too_many_devices", token=token_id, devices=counts.listed, limit=MAX_DEVICES
            )

    async def _account(self, token: Token, client: AssignmentClient) -> None:
        """What `/account` says; raises WrongServer when that is not this token's server (5.4)."""
        account = account_of(await client.account())
        check_account(token.account, account)
        if token.account.admin_id not in (None, account.admin_id):
            log.info("assignment_admin_changed", token=token.token_id, admin_id=account.admin_id)
        if account != token.account:
            await self._store.set_account(token.token_id, account)

    async def _full(self, token: Token, client: AssignmentClient, sync_id: int) -> None:
        cursor = token.position.cursor
        moves = Moves("assignment_fetch", cursor)
        while True:
            try:
                page = page_of(await client.fetch(cursor, PAGE_SIZE), token.token_id)
            except AppleRefused as error:
                if error.word == "EXHAUSTED_CURSOR" and cursor is not None:
                    break  # the page before was the last
                raise
            await self._keep(page, token, "full", sync_id)
            if not page.more_to_follow:
                break
            moves.check(page)
            cursor = page.cursor
        removed = await self._store.end_full(token.token_id, self._clock.now())
        if removed:
            log.info("devices_vanished", token=token.token_id, devices=removed)

    async def _delta(self, token: Token, client: AssignmentClient, sync_id: int) -> None:
        cursor = token.position.cursor or ""
        moves = Moves("assignment_sync", cursor)
        while True:
            try:
                page = page_of(await client.sync(cursor, PAGE_SIZE), token.token_id, delta=True)
            except AppleRefused as error:
                if error.word == "EXHAUSTED_CURSOR":
                    return  # nothing new
                raise
            await self._keep(page, token, "delta", sync_id)
            if not page.more_to_follow:
                return
            moves.check(page)
            cursor = page.cursor

    async def _keep(self, page: Page, token: Token, kind: SyncKind, sync_id: int) -> None:
        await self._store.store_page(
            sync_id,
            token.token_id,
            page.devices,
            kind=kind,
            cursor=page.cursor,
            at=self._clock.now(),
        )


class Moves:
    """Sees whether the cursors of one sync lead on: a repeated one, or empty pages without end, would never finish."""

    def __init__(self, step: str, cursor: str | None) -> None:
        self._step = step
        self._seen = {cursor}
        self._empty = 0

    def check(self, page: Page) -> None:
        """Of a page behind which more is said to follow. Raises StuckCursor."""
        self._empty = 0 if page.devices else self._empty + 1
        if page.cursor in self._seen:
            raise StuckCursor(self._step, "more is to follow, but the cursor is one of before")
        if self._empty > MAX_EMPTY_PAGES:
            raise StuckCursor(self._step, f"more is to follow, but {self._empty} pages were empty")
        self._seen.add(page.cursor)


def _failed(kind: SyncKind, error: AppleError) -> Ending:
    lost = error.word in LOST or isinstance(error, StuckCursor)
    return Ending(
        SyncState.FAILED,
        str(error),
        force_full=kind == "delta",
        drop_cursor=kind == "full" and lost,
        full_at_once=error.word in LOST,
    )


def check_account(stored: Account, came: Account) -> None:
    """Raises WrongServer."""
    if stored.server_uuid not in (None, came.server_uuid):
        raise WrongServer("SERVER_CHANGED", stored.server_uuid, came.server_uuid)
    if stored.org_id not in (None, came.org_id):
        raise WrongServer("ORGANIZATION_CHANGED", stored.org_id, came.org_id)
