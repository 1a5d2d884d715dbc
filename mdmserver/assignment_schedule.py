"""When each token syncs by itself, one sync at a time per token, and the daily purge of what was removed (rules 37, 107-109).

One small task a token sleeps until its next sync is due, by the injected clock. An admin's sync starts through the same door.
"""

import asyncio
from collections.abc import Coroutine
from datetime import datetime, timedelta
from typing import Any, Final

import structlog

from certs.clock import Clock
from mdmserver.assignment_errors import AppleError, SyncRunning, TokenExpired, Unknown
from mdmserver.assignment_profiles import AssignmentProfiles, Results
from mdmserver.assignment_rules import (
    DELTA_EVERY,
    PURGE_EVERY,
    SYNC_LIMIT,
    Plan,
    next_due,
    plan,
)
from mdmserver.assignment_sync import TokenSync
from mdmserver.background import Working
from mdmserver.store.assignment_base import (
    AssignmentStore,
    SyncKind,
    SyncState,
    Token,
    Trigger,
)

log = structlog.get_logger()

MAX_AT_ONCE: Final = 8  # tokens that sync at the same moment; the others wait for their turn


class Schedule:
    """Starts syncs; ends them when the server does."""

    def __init__(
        self,
        store: AssignmentStore,
        syncs: TokenSync,
        profiles: AssignmentProfiles,
        clock: Clock,
        *,
        removed_for: timedelta,
    ) -> None:
        self._store = store
        self._syncs = syncs
        self._profiles = profiles
        self._clock = clock
        self._removed_for = removed_for
        self._turns = asyncio.Semaphore(MAX_AT_ONCE)
        self._keepers: dict[str, asyncio.Task[None]] = {}
        self._running: dict[str, asyncio.Task[None]] = {}
        self._running_since: dict[str, datetime] = {}
        self._others: set[asyncio.Task[None]] = set()
        self._waiting: set[str] = set()  # tokens with throttled devices

    async def start(self) -> None:
        """Take up the tokens of the store; what ran when the last process ended is written down as interrupted."""
        interrupted = await self._store.interrupt_syncs(self._clock.now())
        if interrupted:
            log.warning("syncs_interrupted", syncs=interrupted)
        self._spawn(self._purge())
        for token in await self._store.tokens():
            if token.credentials.expires_at <= self._clock.now():
                log.warning(
                    "assignment_token_expired",
                    token=token.token_id,
                    name=token.name,
                    expired_at=f"{token.credentials.expires_at:%FT%TZ}",
                )
            self._keep(token.token_id)

    async def close(self) -> None:
        """Cancel everything and wait for it."""
        tasks = [*self._keepers.values(), *self._running.values(), *self._others]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def running_since(self, token_id: str) -> datetime | None:
        """None: no sync runs."""
        return self._running_since.get(token_id)

    async def begin(self, token: Token, trigger: Trigger, wanted: SyncKind | None = None) -> Plan:
        """Start a sync now, in the background. Raises SyncRunning, SyncTooSoon or TokenExpired."""
        token_id = token.token_id
        if (since := self._running_since.get(token_id)) is not None:
            raise SyncRunning(since)
        now = self._clock.now()
        # Taken before the first await, so that two requests at once cannot both pass (D11).
        self._running_since[token_id] = now
        try:
            if token.credentials.expires_at <= now:
                raise TokenExpired(token.credentials.expires_at)
            counts = await self._store.counts(token_id)
            latest = await self._store.token(token_id)
            if latest is None:
                raise Unknown("token", token_id)
            chosen = plan(
                latest.position, now=now, trigger=trigger, wanted=wanted, devices=counts.listed
            )
        except BaseException:
            del self._running_since[token_id]
            raise
        if chosen.warning:
            log.warning("sync_early", token=token_id, warning=chosen.warning)
        self._running[token_id] = asyncio.create_task(self._sync(token_id, chosen, trigger))
        return chosen

    async def first(self, token: Token) -> None:
        """The token was created: it syncs at once, and from now on by itself."""
        await self.begin(token, "upload")
        self._keep(token.token_id)

    async def renewed(self, token: Token) -> None:
        """New credentials: what the old ones failed to do is tried at once."""
        self._stop_keeping(token.token_id)
        if self.running_since(token.token_id) is None:
            await self.begin(token, "upload")
        self._keep(token.token_id)

    def try_again(self, token_id: str, results: Results) -> None:
        """What was throttled as it was to get the default profile gets it once Apple allows that."""
        if "THROTTLED" in results.devices.values() and token_id not in self._waiting:
            self._waiting.add(token_id)
            wait_s = results.retry_after_s or SYNC_LIMIT.total_seconds()
            self._spawn(self._assign_default_after(token_id, wait_s))

    def forget(self, token_id: str) -> None:
        """The token is deleted."""
        self._stop_keeping(token_id)

    # -- one token ------------------------------------------------------------------------------------------------

    async def _sync(self, token_id: str, chosen: Plan, trigger: Trigger) -> None:
        """The sync, a full one after it where the cursor was lost, and the default profile for what came."""
        try:
            async with self._turns:
                ending = await self._syncs.run(token_id, chosen, trigger)
                if ending.full_at_once:
                    ending = await self._syncs.run(token_id, Plan("full", fresh=True), trigger)
            if ending.state is SyncState.DONE:
                with Working(self._clock):
                    await self._assign_default(token_id)
        finally:
            self._running.pop(token_id, None)
            self._running_since.pop(token_id, None)

    async def _assign_default(self, token_id: str) -> None:
        try:
            results = await self._profiles.assign_default(token_id, patient=True)
        except AppleError as error:
            log.warning("default_profile_failed", token=token_id, reason=str(error))
            return
        self.try_again(token_id, results)

    async def _assign_default_after(self, token_id: str, seconds: float) -> None:
        with Working(self._clock):
            await self._clock.sleep(seconds)
            self._waiting.discard(token_id)
            await self._assign_default(token_id)

    def _keep(self, token_id: str) -> None:
        self._stop_keeping(token_id)
        self._keepers[token_id] = asyncio.create_task(self._keeper(token_id))

    def _stop_keeping(self, token_id: str) -> None:
        if (keeper := self._keepers.pop(token_id, None)) is not None:
            keeper.cancel()

    async def _keeper(self, token_id: str) -> None:
        """Sleeps until the next sync is due, until the token is deleted."""
        with Working(self._clock) as working:
            while True:
                while (running := self._running.get(token_id)) is not None:
                    with working.paused():
                        await asyncio.wait((running,))
                token = await self._store.token(token_id)
                if token is None:
                    return
                if (wait_s := await self._wait_s(token)) > 0:
                    await self._clock.sleep(wait_s)
                    continue  # and see whether an admin was faster
                try:
                    await self.begin(token, "schedule")
                except SyncRunning:
                    await asyncio.sleep(0)
                except (TokenExpired, Unknown) as error:
                    log.warning("sync_not_possible", token=token_id, reason=str(error))
                    await self._clock.sleep(DELTA_EVERY.total_seconds())

    async def _wait_s(self, token: Token) -> float:
        """Seconds until the next sync by itself."""
        due = await self.due(token)
        return 0.0 if due is None else max(0.0, (due - self._clock.now()).total_seconds())

    async def due(self, token: Token) -> datetime | None:
        """When the next sync runs by itself; None: at once."""
        syncs = await self._store.syncs(token.token_id, 1)
        return next_due(token.position, syncs[0].state if syncs else None)

    # -- what concerns all ----------------------------------------------------------------------------------------

    async def _purge(self) -> None:
        with Working(self._clock):
            while True:
                purged = await self._store.purge_removed(self._clock.now() - self._removed_for)
                if purged:
                    log.info("removed_devices_purged", devices=purged)
                await self._clock.sleep(PURGE_EVERY.total_seconds())

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._others.add(task)
        task.add_done_callback(self._others.discard)
