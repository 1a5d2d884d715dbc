"""Endpoints about profiles: define, read, assign, unassign (apple-services.md 4.9)."""

import math
from collections.abc import Sequence

import structlog

from emulator.apple import assignment_profile
from emulator.apple.answer import Refusal
from emulator.apple.assignment import Asked, AssignmentDesk, AssignmentService, Told, results_of
from emulator.apple.pace import Pace
from emulator.apple.records import Profile
from emulator.apple.registry import LimitReached
from emulator.wire.assignment import DevicesRequest, Result, profile_uuid_of

log = structlog.get_logger()

LIMIT_WORD = "PROFILE_LIMIT_REACHED"  # ours: how Apple refuses the 1,001st is not known


class AssigningService(AssignmentService):
    """What define and assign share."""

    def __init__(self, desk: AssignmentDesk, pace: Pace) -> None:
        super().__init__(desk)
        self._pace = pace

    def assign(
        self, asked: Asked, profile: Profile, serials: Sequence[str]
    ) -> tuple[dict[str, Result], int | None]:
        """Results by serial number, and after how many seconds those that were throttled may come again."""
        forced = self.forced(asked, serials)
        registry, results = self.desk.registry, dict.fromkeys(serials, Result.NOT_ACCESSIBLE)
        mine = []
        for serial in results:
            record = registry.accessible(asked.ledger, serial)
            if serial in forced:
                results[serial] = forced[serial]
            elif record is not None:
                mine.append(record)
        room, wait_s = self._pace.room(asked.ledger.uuid, len(mine), asked.now)
        for number, record in enumerate(mine):
            if number < room:
                record.give(profile, asked.now)
            results[record.serial_number] = Result.SUCCESS if number < room else Result.THROTTLED
        throttled = Result.THROTTLED in results.values()
        if throttled and asked.version < 9:
            results = {
                serial: Result.FAILED if result is Result.THROTTLED else result
                for serial, result in results.items()
            }
        wait = max(1, math.ceil(wait_s)) if throttled and asked.version >= 10 else None
        return results, wait


class DefineService(AssigningService):
    """`POST /profile`: a new profile each time, and its devices at once."""

    step = "assignment_define"

    def tell(self, asked: Asked) -> Told:
        request = DevicesRequest.from_fields(
            {key: value for key, value in asked.fields.items() if key == "devices"}
        )
        serials = self.serials(request, needed=False)
        profile = assignment_profile.define(asked.fields)
        try:
            self.desk.registry.define(asked.ledger, profile)
        except LimitReached as error:
            raise Refusal("PROFILE", 400, LIMIT_WORD, str(error)) from error
        results, _ = self.assign(asked, profile, serials)
        log.info("profile_defined", server=asked.ledger.name, profile=profile.uuid)
        return Told(
            fields=results_of(results, profile_uuid=profile.uuid),
            outcome="defined",
            devices=len(results),
        )


class ProfileService(AssignmentService):
    """`GET /profile?profile_uuid=UUID`."""

    step = "assignment_profile"

    def tell(self, asked: Asked) -> Told:
        uuid = profile_uuid_of(asked.query.get("profile_uuid", ""))
        if not uuid:
            raise Refusal("PROFILE", 400, "PROFILE_UUID_REQUIRED", "no profile_uuid in the query")
        profile = profile_for(self.desk, asked, uuid)
        return Told(fields=assignment_profile.shown(profile), outcome="profile")


class AssignService(AssigningService):
    """`POST` or `PUT /profile/devices`."""

    step = "assignment_assign"

    def tell(self, asked: Asked) -> Told:
        request = DevicesRequest.from_fields(asked.fields)
        serials = self.serials(request)
        if not request.profile_uuid:
            raise Refusal("PROFILE", 400, "PROFILE_UUID_REQUIRED", "no profile_uuid")
        profile = profile_for(self.desk, asked, request.profile_uuid)
        results, wait_s = self.assign(asked, profile, serials)
        more = {} if wait_s is None else {"retry_after_seconds": wait_s}
        return Told(
            fields={**results_of(results, profile_uuid=profile.uuid), **more},
            outcome="assigned",
            devices=len(results),
        )


class UnassignService(AssignmentService):
    """`DELETE /profile/devices`, with a body."""

    step = "assignment_unassign"

    def tell(self, asked: Asked) -> Told:
        serials = self.serials(DevicesRequest.from_fields(asked.fields))
        forced = self.forced(asked, serials)
        results = {}
        for serial in dict.fromkeys(serials):
            record = self.desk.registry.accessible(asked.ledger, serial)
            if serial in forced:
                results[serial] = forced[serial]
            elif record is None:
                results[serial] = Result.NOT_ACCESSIBLE
            else:
                record.take(asked.now, self.desk.registry.unassign_status)
                results[serial] = Result.SUCCESS
        return Told(fields=results_of(results), outcome="unassigned", devices=len(results))


def profile_for(desk: AssignmentDesk, asked: Asked, uuid: str) -> Profile:
    """A profile that the server defined, or its portal's own. Raises Refusal."""
    profile = asked.ledger.profiles.get(uuid)
    if profile is None:
        own = asked.organization.servers[asked.ledger.name].profile
        profile = own if own is not None and own.uuid == uuid else None
    if profile is None:
        raise Refusal("PROFILE", 404, "NOT_FOUND", f"no profile {uuid:.64}")
    return profile
