"""The server's client of Apple's device assignment: tokens, syncs, profiles, in one place to start and to ask.

`assignment_tokens` has the tokens, `assignment_schedule` and `assignment_sync` the syncs by the rules of `assignment_rules`,
`assignment_profiles` who gets which profile; `assignment_client` speaks to Apple's side through the door of `assignment_apple`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Self

import structlog
from cryptography import x509

from certs.clock import Clock
from certs.faults import Action, FaultPoint, Side
from certs.hosts import HostMap
from emulator.http import HttpDoor, TrustSet
from emulator.wire.fields import Fields
from mdmserver.assignment_apple import AppleSide
from mdmserver.assignment_errors import NotPossible, Unknown
from mdmserver.assignment_profiles import AssignmentProfiles
from mdmserver.assignment_rules import MAX_DEVICES
from mdmserver.assignment_schedule import Schedule
from mdmserver.assignment_sync import TokenSync
from mdmserver.assignment_tokens import Tokens
from mdmserver.background import BackgroundClock
from mdmserver.settings import Settings
from mdmserver.store.assignment_base import AssignmentStore, Counts, SyncRecord, Token

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenStatus:
    """A token as administrators see it."""

    token: Token
    counts: Counts
    profiles: int
    running_since: datetime | None
    latest: SyncRecord | None
    next_sync: datetime | None
    expired: bool
    warnings: tuple[str, ...]


class Assignment:
    """All of it; an async context manager."""

    def __init__(
        self,
        settings: Settings,
        store: AssignmentStore,
        clock: Clock,
        own_profile: Callable[[], Fields],
        *,
        roots: Sequence[x509.Certificate] = (),
        faults: FaultPoint,
    ) -> None:
        """`roots`: what Apple's side must lead to; none means the machine's own."""

        def as_server(side: Side, step: str, message: object, n: int) -> Action | None:
            return faults("server", step, message, n)  # the door calls its own side "device"

        clock = BackgroundClock(clock)
        door = HttpDoor(
            clock=clock, hosts=HostMap.parse(list(settings.assignment_map)), faults=as_server
        )
        trust = TrustSet(system=not roots).with_roots(*roots)
        apple = AppleSide(
            store,
            door,
            trust,
            url=settings.assignment_url,
            user_agent=settings.assignment_user_agent,
        )
        self.store = store
        self.tokens = Tokens(store, apple, clock)
        self.profiles = AssignmentProfiles(store, apple, clock, own_profile)
        self.schedule = Schedule(
            store,
            TokenSync(store, apple, clock),
            self.profiles,
            clock,
            removed_for=timedelta(days=settings.removed_days),
        )
        self._clock = clock

    async def __aenter__(self) -> Self:
        await self.schedule.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.schedule.close()

    async def status(self, token: Token) -> TokenStatus:
        """How a token stands now."""
        counts = await self.store.counts(token.token_id)
        syncs = await self.store.syncs(token.token_id, 1)
        return TokenStatus(
            token=token,
            counts=counts,
            profiles=len(await self.store.profiles(token.token_id)),
            running_since=self.schedule.running_since(token.token_id),
            latest=syncs[0] if syncs else None,
            next_sync=await self.schedule.due(token),
            expired=token.credentials.expires_at <= self._clock.now(),
            warnings=_warnings(counts),
        )

    async def problems(self) -> list[str]:
        """What keeps devices from coming here by assignment (rule 10): one sentence each, beginning with its name."""
        tokens = await self.store.tokens()
        if not tokens:
            return ["NO_TOKEN: make a key pair (POST /v1/token-keys) and upload a server token"]
        found = []
        now = self._clock.now()
        for token in tokens:
            name = f"token {token.name!r} ({token.token_id})"
            if token.credentials.expires_at <= now:
                found.append(f"TOKEN_EXPIRED: {name} at {token.credentials.expires_at:%FT%TZ}")
            elif token.trouble is not None:
                found.append(f"{token.trouble.word}: {name}: {token.trouble.detail}")
            elif token.default_profile is None:
                found.append(
                    f"NO_DEFAULT_PROFILE: {name}: new devices get no profile by themselves"
                )
        return found

    async def delete_token(self, token_id: str) -> None:
        """Raises Unknown or NotPossible."""
        if self.schedule.running_since(token_id) is not None:
            raise NotPossible(f"a sync of token {token_id} runs")
        await self.tokens.delete(token_id)
        self.schedule.forget(token_id)

    async def delete_device(self, token: Token, serial: str) -> None:
        """Hide a device until a full sync names it again; one that is removed goes for good (rules 106, 107)."""
        if not await self.store.delete_listed(token.token_id, serial, self._clock.now()):
            raise Unknown("device", serial)
        log.info("listed_device_deleted", token=token.token_id, serial=serial)


def _warnings(counts: Counts) -> tuple[str, ...]:
    """Rule 30: both limits, each with its number."""
    found = []
    if counts.listed > MAX_DEVICES:
        found.append(
            f"{counts.listed} devices, more than {MAX_DEVICES} per token: syncs may fail, split it"
        )
    found += [
        f"{number} devices have profile {uuid}, more than {MAX_DEVICES}"
        for uuid, number in counts.by_profile.items()
        if number > MAX_DEVICES
    ]
    return tuple(found)
