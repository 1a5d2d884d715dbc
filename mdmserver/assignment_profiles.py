"""Profiles and who has them: define, assign, unassign, disown, and the default profile of a token (rules 29, 39, 60, 111, 112).

A profile is never changed: a device keeps what it fetched until it is erased (rule 40), so another profile is defined and
assigned instead. What Apple answers per serial number is kept with the device.
"""

import asyncio
import json
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import structlog

from certs.clock import Clock
from emulator.wire.fields import Fields
from mdmserver.assignment_answers import profile_uuid_of, results_of
from mdmserver.assignment_apple import AppleSide
from mdmserver.assignment_client import AssignmentClient
from mdmserver.assignment_errors import (
    Invalid,
    LimitReached,
    NotPossible,
    Unknown,
)
from mdmserver.assignment_rules import MAX_PROFILES, MAX_SERIALS
from mdmserver.store.assignment_base import AssignedProfile, AssignmentStore, Token

log = structlog.get_logger()

MAX_SUPERVISING_CERTIFICATES: Final = 10  # rule 60
SUCCESS: Final = "SUCCESS"


@dataclass(slots=True)
class Results:
    """What became of each serial number, in Apple's words, and when those that were throttled may be tried again."""

    devices: dict[str, str] = field(default_factory=dict)
    retry_after_s: float | None = None

    @property
    def succeeded(self) -> int:
        return sum(word == SUCCESS for word in self.devices.values())

    def add(self, devices: Mapping[str, str], retry_after_s: float | None) -> None:
        self.devices.update(devices)
        if retry_after_s is not None:
            self.retry_after_s = max(self.retry_after_s or 0.0, retry_after_s)


class AssignmentProfiles:
    """The profiles of every token."""

    def __init__(
        self,
        store: AssignmentStore,
        apple: AppleSide,
        clock: Clock,
        own_profile: Callable[[], Fields],
    ) -> None:
        """`own_profile` is what sends devices to this server; a definition may say otherwise."""
        self._store = store
        self._apple = apple
        self._clock = clock
        self._own_profile = own_profile
        self._defining: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def define(self, token: Token, given: Fields) -> tuple[AssignedProfile, Results]:
        """Define a profile of our own keys and those given. Raises LimitReached, Invalid or AppleError."""
        fields = {**self._own_profile(), **given}
        certificates = fields.get("supervising_host_certs") or ()
        if len(certificates) > MAX_SUPERVISING_CERTIFICATES:
            raise Invalid(
                f"supervising_host_certs: at most {MAX_SUPERVISING_CERTIFICATES} certificates, "
                f"got {len(certificates)}"
            )
        async with self._defining[token.token_id]:
            if len(await self._store.profiles(token.token_id)) >= MAX_PROFILES:
                raise LimitReached("profiles per token", MAX_PROFILES)
            async with self._apple.client(token) as client:
                answer = await client.define({"devices": [], **fields})
            profile = AssignedProfile(
                token_id=token.token_id,
                uuid=profile_uuid_of("assignment_define", answer),
                name=str(fields.get("profile_name", "")),
                fields=json.dumps({k: v for k, v in fields.items() if k != "devices"}),
                defined_at=self._clock.now(),
            )
            await self._store.add_profile(profile)
        results = Results()
        results.add(*results_of("assignment_define", answer))
        await self._store.record_assignment(
            token.token_id, profile.uuid, results.devices, self._clock.now()
        )
        log.info(
            "assignment_profile_defined",
            token=token.token_id,
            profile=profile.uuid,
            name=profile.name,
            devices=len(results.devices),
        )
        return profile, results

    async def profile(self, token: Token, uuid: str) -> AssignedProfile:
        """Raises Unknown."""
        found = await self._store.profile(token.token_id, uuid.replace("-", "").upper())
        if found is None:
            raise Unknown("profile", uuid)
        return found

    async def at_apple(self, token: Token, uuid: str) -> Fields:
        """The profile as Apple has it. Raises Unknown or AppleError."""
        profile = await self.profile(token, uuid)
        async with self._apple.client(token) as client:
            return await client.profile(profile.uuid)

    async def forget(self, token: Token, uuid: str) -> None:
        """Apple deletes no profile; here one may go that no device has. Raises Unknown or NotPossible."""
        profile = await self.profile(token, uuid)
        if token.default_profile == profile.uuid:
            raise NotPossible(f"{profile.uuid} is the default profile: choose another one first")
        devices = (await self._store.counts(token.token_id)).by_profile.get(profile.uuid, 0)
        if devices:
            raise NotPossible(f"{devices} devices have {profile.uuid}: assign another one first")
        await self._store.drop_profile(token.token_id, profile.uuid)
        log.info("assignment_profile_forgotten", token=token.token_id, profile=profile.uuid)

    async def set_default(self, token: Token, uuid: str | None) -> Results:
        """From now on for every device that comes without one, and at once for those that have none."""
        chosen = None if uuid is None else (await self.profile(token, uuid)).uuid
        await self._store.set_default_profile(token.token_id, chosen)
        log.info("assignment_default_profile", token=token.token_id, profile=chosen)
        return await self.assign_default(token.token_id)

    async def assign_default(self, token_id: str, *, patient: bool = False) -> Results:
        """The default profile for each listed device without one, but those that an admin unassigned."""
        results = Results()
        token = await self._store.token(token_id)
        if token is None or token.default_profile is None:
            return results
        uuid, after = token.default_profile, ""
        serials = await self._store.without_profile(token_id, after=after, limit=MAX_SERIALS)
        if not serials:
            return results
        async with self._apple.client(token, patient=patient) as client:
            while serials:
                results.add(*await self._assign(client, token_id, uuid, serials))
                after = serials[-1]
                serials = await self._store.without_profile(
                    token_id, after=after, limit=MAX_SERIALS
                )
        log.info(
            "assignment_default_assigned",
            token=token_id,
            profile=uuid,
            devices=len(results.devices),
            succeeded=results.succeeded,
        )
        return results

    async def assign(self, token: Token, uuid: str, serials: Sequence[str]) -> Results:
        """Raises Unknown or AppleError; of several requests those before it have taken effect."""
        profile = await self.profile(token, uuid)

        async def one(client: AssignmentClient, batch: Sequence[str]) -> None:
            results.add(*await self._assign(client, token.token_id, profile.uuid, batch))

        results = Results()
        await self._in_batches(token, serials, one)
        return results

    async def unassign(self, token: Token, serials: Sequence[str]) -> Results:
        """Take the profile away; the default profile does not come back by itself."""

        async def one(client: AssignmentClient, batch: Sequence[str]) -> None:
            devices, _ = results_of("assignment_unassign", await client.unassign(batch))
            await self._store.record_unassignment(token.token_id, devices, self._clock.now())
            results.add(devices, None)

        results = Results()
        await self._in_batches(token, serials, one)
        return results

    async def disown(self, token: Token, serials: Sequence[str]) -> Results:
        """Give devices up for good: they leave the organisation."""

        async def one(client: AssignmentClient, batch: Sequence[str]) -> None:
            devices, _ = results_of("assignment_disown", await client.disown(batch))
            await self._store.record_disowning(token.token_id, devices, self._clock.now())
            results.add(devices, None)

        results = Results()
        await self._in_batches(token, serials, one)
        log.info("devices_disowned", token=token.token_id, devices=results.succeeded)
        return results

    async def _assign(
        self, client: AssignmentClient, token_id: str, uuid: str, serials: Sequence[str]
    ) -> tuple[Mapping[str, str], float | None]:
        answer = await client.assign(uuid, serials)
        devices, retry_after_s = results_of("assignment_assign", answer)
        await self._store.record_assignment(token_id, uuid, devices, self._clock.now())
        return devices, retry_after_s

    async def _in_batches(
        self,
        token: Token,
        serials: Sequence[str],
        one: Callable[[AssignmentClient, Sequence[str]], Awaitable[None]],
    ) -> None:
        wanted = list(dict.fromkeys(serial.strip().upper() for serial in serials))
        if not wanted:
            raise Invalid("serials: at least one serial number")
        async with self._apple.client(token) as client:
            for start in range(0, len(wanted), MAX_SERIALS):
                await one(client, wanted[start : start + MAX_SERIALS])
