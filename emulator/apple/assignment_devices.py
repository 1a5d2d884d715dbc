"""Endpoints about devices: fetch, sync, details, disown, activation lock, replacements (apple-services.md 4.5 to 4.8, 4.10)."""

import secrets
from collections.abc import Iterator
from typing import Final

import structlog

from emulator.apple import assignment_cursor
from emulator.apple.answer import Refusal
from emulator.apple.assignment import Asked, AssignmentDesk, AssignmentService, Told, results_of
from emulator.apple.assignment_account import admin_of
from emulator.apple.assignment_cursor import Cursor, InvalidCursor, Phase
from emulator.apple.device_listing import family_of, listed
from emulator.apple.operations import Entry, Kind
from emulator.apple.pace import Pace
from emulator.apple.records import ActivationLock
from emulator.wire.assignment import (
    DevicesRequest,
    LockRequest,
    LockResult,
    Operation,
    OpType,
    Page,
    PageRequest,
    Result,
)
from emulator.wire.fields import Fields

log = structlog.get_logger()

LOCKABLE: Final = frozenset({"iPhone", "iPad", "iPod", "Vision"})
OP_TYPES: Final = {
    Kind.ADDED: OpType.ADDED,
    Kind.MODIFIED: OpType.MODIFIED,
    Kind.DELETED: OpType.DELETED,
    Kind.REPLACED: OpType.DELETED,
}


class PageService(AssignmentService):
    """What fetch and sync share: the request, the cursor, the pace."""

    def __init__(self, desk: AssignmentDesk, pace: Pace) -> None:
        super().__init__(desk)
        self._pace = pace

    def tell(self, asked: Asked) -> Told:
        request = PageRequest.from_fields(asked.fields)
        settings = self.desk.settings
        limit = min(request.limit or settings.page_default, settings.page_maximum)
        page, outcome = self.page(asked, request.cursor, limit)
        fields = page.to_fields()
        if request.cursor is not None and self.repeats(asked):
            fields |= {"cursor": request.cursor, "more_to_follow": True}
        count = len(page.devices)
        delay_s = self._pace.delay_s(asked.ledger.uuid, count, asked.now)
        return Told(fields=fields, outcome=outcome, devices=count, delay_s=delay_s)

    def page(self, asked: Asked, cursor: str | None, limit: int) -> tuple[Page, str]:
        """One page, and what the log calls it. Raises Refusal."""
        raise NotImplementedError

    def cursor(self, asked: Asked, text: str) -> Cursor:
        """Raises Refusal for one that is none, another server's, or ahead of the log."""
        try:
            cursor = assignment_cursor.decode(text, self.desk.registry.secret, asked.ledger.uuid)
        except InvalidCursor as error:
            raise Refusal("CURSOR", 400, "INVALID_CURSOR", str(error)) from error
        if cursor.position > asked.ledger.operations.end:
            raise Refusal("CURSOR", 400, "INVALID_CURSOR", "it is ahead of the log")
        return cursor

    def sealed(self, asked: Asked, cursor: Cursor) -> str:
        return cursor.encode(self.desk.registry.secret, asked.ledger.uuid)


class FetchService(PageService):
    """`POST /server/devices`: every device of the server as of the first page, in the order in which they came."""

    step = "assignment_fetch"

    def page(self, asked: Asked, cursor: str | None, limit: int) -> tuple[Page, str]:
        at = self._start(asked) if cursor is None else self._resume(asked, cursor)
        ledger, records = asked.ledger, self.desk.registry.records
        devices: list[Fields] = []
        position, more = at.until, False
        for place, serial in ledger.roster.between(at.position, at.until):
            if len(devices) == limit:
                position, more = place, True
                break
            devices.append(listed(records[serial]).to_fields(asked.version))
        following = Cursor(
            phase=Phase.FETCH,
            position=position,
            until=at.until,
            since=at.since,
            done=not more,
            made=asked.now,
        )
        page = Page(
            devices=devices,
            cursor=self.sealed(asked, following),
            more_to_follow=more,
            fetched_until=at.since,
        )
        return page, "full" if cursor is None else "page"

    def _start(self, asked: Asked) -> Cursor:
        """A fetch begins. One that begins while the one before could not have ended is noted (rule 32)."""
        ledger = asked.ledger
        if self._pace.too_soon(ledger.uuid, len(ledger.roster), asked.now):
            log.warning("fetch_too_soon", server=ledger.name, devices=len(ledger.roster))
        return Cursor(
            phase=Phase.FETCH,
            position=0,
            until=ledger.operations.end,
            since=asked.now,
            made=asked.now,
        )

    def _resume(self, asked: Asked, text: str) -> Cursor:
        cursor = self.cursor(asked, text)
        if cursor.done or cursor.phase is Phase.SYNC:
            raise Refusal("CURSOR", 400, "EXHAUSTED_CURSOR", "everything was returned with it")
        if cursor.expired(asked.now):
            raise Refusal("CURSOR", 400, "EXPIRED_CURSOR", f"made {cursor.made}")
        return cursor


class SyncService(PageService):
    """`POST /devices/sync`: what happened since a cursor was made, oldest first."""

    step = "assignment_sync"

    def page(self, asked: Asked, cursor: str | None, limit: int) -> tuple[Page, str]:
        if cursor is None:
            raise Refusal("CURSOR", 400, "CURSOR_REQUIRED", "no cursor")
        at = self.cursor(asked, cursor)
        if at.expired(asked.now):
            raise Refusal("CURSOR", 400, "EXPIRED_CURSOR", f"made {at.made}")
        start = at.position
        if at.phase is Phase.FETCH and not at.done:
            log.warning("fetch_left_unfinished", server=asked.ledger.name)
            start = at.until
        if start < asked.ledger.operations.base:
            raise Refusal("CURSOR", 400, "EXPIRED_CURSOR", "the log does not go back so far")
        devices: list[Fields] = []
        position, more, until = asked.ledger.operations.end, False, asked.now
        for entry, fields in self._told_of(asked, start):
            if len(devices) == limit:
                position, more = entry.position, True
                break
            devices.append(fields)
            until = entry.at
        following = Cursor(
            phase=Phase.SYNC,
            position=position,
            until=asked.ledger.operations.end,
            since=until if more else asked.now,
            made=asked.now,
        )
        page = Page(
            devices=devices,
            cursor=self.sealed(asked, following),
            more_to_follow=more,
            fetched_until=until if more else asked.now,
        )
        return page, "delta"

    def _told_of(self, asked: Asked, position: int) -> Iterator[tuple[Entry, Fields]]:
        """Operations with their device as it is now; what a device did here before it left is not told again."""
        for entry in asked.ledger.operations.since(position):
            if entry.kind is Kind.SILENT:
                continue
            operation = Operation(
                op_type=OP_TYPES[entry.kind],
                op_date=entry.at,
                released_by_replacement=entry.kind is Kind.REPLACED,
            )
            if entry.kind.ends:
                device: Fields = {"serial_number": entry.serial_number}
            else:
                record = self.desk.registry.accessible(asked.ledger, entry.serial_number)
                if record is None or record.position > entry.position:
                    continue
                device = listed(record).to_fields(asked.version)
            yield entry, {**device, **operation.to_fields(asked.version)}


class DetailsService(AssignmentService):
    """`POST /devices`: any number of serial numbers."""

    step = "assignment_details"

    def tell(self, asked: Asked) -> Told:
        request = DevicesRequest.from_fields(asked.fields)
        if not request.devices:
            raise Refusal("DEVICES", 400, "DEVICE_ID_REQUIRED", "devices is missing or empty")
        forced = self.forced(asked, request.devices)
        devices = {}
        for serial in request.devices:
            record = self.desk.registry.accessible(asked.ledger, serial)
            result = forced.get(serial) or (Result.SUCCESS if record else Result.NOT_ACCESSIBLE)
            facts: Fields = {}
            if record is not None and result is Result.SUCCESS:
                facts = listed(record).to_fields(asked.version)
            devices[serial] = {**facts, "response_status": result.value}
        return Told(fields={"devices": devices}, outcome="details", devices=len(devices))


class DisownService(AssignmentService):
    """`POST /devices/disown`: out of the organisation, for good."""

    step = "assignment_disown"

    def tell(self, asked: Asked) -> Told:
        serials = self.serials(DevicesRequest.from_fields(asked.fields))
        forced = self.forced(asked, serials)
        registry, results = self.desk.registry, {}
        for serial in dict.fromkeys(serials):
            if serial in forced:
                results[serial] = forced[serial]
            elif registry.accessible(asked.ledger, serial) is None:
                results[serial] = Result.NOT_ACCESSIBLE
            else:
                registry.release(serial, asked.now)
                results[serial] = Result.SUCCESS
        return Told(fields=results_of(results), outcome="disowned", devices=len(results))


class LockService(AssignmentService):
    """`POST /device/activationlock`: with a bypass code's key, or to the administrator who made the server."""

    step = "assignment_lock"

    def tell(self, asked: Asked) -> Told:
        request = LockRequest.from_fields(asked.fields)
        result = self._lock(asked, request)
        return Told(
            fields={"serial_number": request.device, "response_status": result.value},
            outcome=result.value,
        )

    def _lock(self, asked: Asked, request: LockRequest) -> LockResult:
        forced = self.forced(asked, [request.device]).get(request.device)
        if forced is not None:
            return LockResult(forced.value if forced is not Result.THROTTLED else "FAILED")
        record = self.desk.registry.accessible(asked.ledger, request.device)
        if record is None:
            return LockResult.NOT_ACCESSIBLE
        if asked.organization.org_version == "v1":
            return LockResult.ORG_NOT_SUPPORTED
        if family_of(record.product_type) not in LOCKABLE:
            return LockResult.DEVICE_NOT_SUPPORTED
        if record.activation_lock is not None:
            return LockResult.DEVICE_ALREADY_LOCKED
        record.lock(_lock(asked, request))
        return LockResult.SUCCESS


class ReplacementService(AssignmentService):
    """`GET /device/replacementDetails?device=SERIAL`."""

    step = "assignment_replacement"

    def tell(self, asked: Asked) -> Told:
        serial = asked.query.get("device", "").strip().upper()
        if not serial:
            raise Refusal("DEVICE", 400, "DEVICE_ID_REQUIRED", "no device in the query")
        record = self.desk.registry.accessible(asked.ledger, serial)
        purchase = None if record is None else record.purchase
        if purchase is None or purchase.replaces is None or purchase.replacement_date is None:
            status = int(self.desk.settings.replacement_not_found)
            raise Refusal("DEVICE", status, "DEVICE_NOT_FOUND", "it replaces nothing here")
        return Told(
            fields={
                "serial_number": serial,
                "original_device_serial_number": purchase.replaces,
                "replacement_date": f"{purchase.replacement_date:%Y-%m-%d}",
            },
            outcome="replacement",
        )


def _lock(asked: Asked, request: LockRequest) -> ActivationLock:
    account = None
    if request.escrow_key is None:
        admin = admin_of(asked.ledger, asked.organization)
        person = asked.organization.people.get(admin)
        password = None if person is None else person.password
        account = (
            admin,
            password or secrets.token_urlsafe(16),
        )  # unknown to all: only the portal opens it
    lock = ActivationLock(account=account, escrow_hash=request.escrow_key)
    if request.lost_message is None:
        return lock
    return ActivationLock(
        account=account, escrow_hash=request.escrow_key, message=request.lost_message
    )
