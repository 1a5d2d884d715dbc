"""The device assignment API (mdmenrollment): what every endpoint shares (apple-services.md 4.1 to 4.3).

A request comes in, its agent, session and terms are checked, and an endpoint answers for one server's ledger. The session
token may be replaced on the way out, and each call is remembered for whoever wants to know how a server behaves.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

import structlog

from certs.clock import Clock
from certs.errors import MalformedMessage
from emulator.apple.answer import Answer, Received, Refusal
from emulator.apple.assignment_faults import EVERY, REPEAT, RESULTS, AssignmentFaults
from emulator.apple.assignment_settings import AssignmentSettings
from emulator.apple.ledger import Call, Ledger
from emulator.apple.oauth import OAuth
from emulator.apple.records import Organization
from emulator.apple.registry import Registry, UnknownOwner
from emulator.apple.sessions import Sessions
from emulator.wire import assignment, json_object
from emulator.wire.assignment import DevicesRequest, Result
from emulator.wire.fields import Fields

log = structlog.get_logger()

MAX_VERSION: Final = assignment.NEWEST_VERSION


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One request of a server that is known."""

    ledger: Ledger
    organization: Organization
    fields: Fields
    query: Mapping[str, str]
    version: int
    now: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What an endpoint says: JSON, or nothing."""

    fields: Fields | None = None
    outcome: str = "answered"
    devices: int = 0  # how many are in it
    delay_s: float = 0.0


class AssignmentDesk:
    """What all endpoints work with."""

    def __init__(
        self,
        registry: Registry,
        clock: Clock,
        settings: AssignmentSettings,
        faults: AssignmentFaults,
        urls: Callable[[], Iterable[str]],
    ) -> None:
        registry.unassign_status = settings.unassign_status
        registry.moved_as_modified = settings.moved_as_modified
        self.registry = registry
        self.clock = clock
        self.settings = settings
        self.faults = faults
        self.sessions = Sessions(registry.secret, settings)
        self.oauth = OAuth(
            registry, settings, lambda: dict.fromkeys([*urls(), *settings.public_urls])
        )

    def check_agent(self, received: Received) -> None:
        agent = received.user_agent.strip()
        if not agent:
            raise Refusal("AGENT", 400, "USER_AGENT_MISSING", "no User-Agent")
        if any(agent.startswith(prefix) for prefix in self.settings.refused_user_agents):
            raise Refusal("AGENT", 400, "USER_AGENT_INVALID", f"User-Agent {agent:.80}")

    def organization(self, ledger: Ledger) -> Organization:
        """The owner of a server that may speak at all. Raises Refusal."""
        try:
            organization, _, _ = self.registry.server(ledger.uuid)
        except UnknownOwner as error:
            raise Refusal("SESSION", 403, "FORBIDDEN", str(error)) from error
        if ledger.blocked:
            raise Refusal("SERVER", 403, "ACCESS_DENIED", "the portal has blocked the server")
        if not organization.terms_signed:
            raise Refusal("TERMS", 403, "T_C_NOT_SIGNED", "new terms wait for an administrator")
        return organization

    def word(self, refusal: Refusal) -> Refusal:
        """The refusal as the switch has it: Apple's simulator puts words into quotes."""
        if self.settings.quoted_errors:
            refusal.answer = replace(refusal.answer, body=b'"' + refusal.answer.body + b'"')
        return refusal


class AssignmentService(ABC):
    """One endpoint; its step is that of `assignment_faults.STEPS`."""

    step: str

    def __init__(self, desk: AssignmentDesk) -> None:
        self.desk = desk

    def headers(self) -> Mapping[str, str]:
        return {}

    def decode(self, received: Received) -> Received:
        return received  # nothing is refused before planned faults had their turn

    def serial_number(self, message: Received) -> str:
        """The name of the server whose session it seems to be."""
        sessions, ledgers = self.desk.sessions, self.desk.registry.ledgers
        ledger = sessions.claimed(message.headers.get(assignment.SESSION, ""), ledgers)
        return "" if ledger is None else ledger.name

    async def answer(self, message: Received) -> Answer:
        desk, now = self.desk, self.desk.clock.now()
        ledger: Ledger | None = None
        try:
            desk.check_agent(message)
            token = message.headers.get(assignment.SESSION, "")
            ledger = desk.sessions.check(token, desk.registry.ledgers, now)
            organization = desk.organization(ledger)
            asked = Asked(
                ledger=ledger,
                organization=organization,
                fields=_fields(message.body),
                query=message.query,
                version=assignment.version_of(message.headers.get(assignment.VERSION)),
                now=now,
            )
            told = self._told(asked)
        except Refusal as refusal:
            if ledger is not None:
                self._remember(ledger, now, refusal.word, refusal.status)
            raise desk.word(refusal) from refusal.__cause__
        self._remember(ledger, now, told.outcome, 200, told.devices)
        following = desk.sessions.next(token, ledger, now) or token
        return Answer(
            body=b"" if told.fields is None else json_object.dumps(told.fields),
            content_type=assignment.CONTENT_TYPE,
            headers={assignment.SESSION: following},
            outcome=told.outcome,
            delay_s=told.delay_s,
        )

    def _told(self, asked: Asked) -> Told:
        try:
            return self.tell(asked)
        except MalformedMessage as error:
            raise malformed(error) from error

    @abstractmethod
    def tell(self, asked: Asked) -> Told:
        """Act and answer. Raises Refusal or MalformedMessage; then nothing has changed."""

    def _remember(
        self, ledger: Ledger, now: datetime, outcome: str, status: int, devices: int = 0
    ) -> None:
        ledger.calls.append(
            Call(at=now, step=self.step, outcome=outcome, status=status, devices=devices)
        )

    # ---- what several endpoints need ----

    def serials(self, request: DevicesRequest, *, needed: bool = True) -> Sequence[str]:
        """The serial numbers of a request. Raises Refusal for none and for too many."""
        if needed and not request.devices:
            raise Refusal("DEVICES", 400, "DEVICE_ID_REQUIRED", "devices is missing or empty")
        serials = request.devices or ()
        limit = self.desk.settings.max_serials
        if limit and len(serials) > limit:
            raise Refusal(
                "DEVICES", 400, "MALFORMED_REQUEST_BODY", f"{len(serials)} devices, at most {limit}"
            )
        return serials

    def forced(self, asked: Asked, serials: Sequence[str]) -> dict[str, Result]:
        """The results that are planned for this request, by serial number."""
        action = self.desk.faults.take(self.step, asked.ledger.name, (RESULTS,))
        if action is None:
            return {}
        results: Mapping[str, Result] = action.arguments[RESULTS]
        found = {serial: results.get(serial, results.get(EVERY)) for serial in serials}
        return {serial: result for serial, result in found.items() if result is not None}

    def repeats(self, asked: Asked) -> bool:
        """Whether this page is planned to lead nowhere."""
        return self.desk.faults.take(self.step, asked.ledger.name, (REPEAT,)) is not None


def malformed(error: MalformedMessage) -> Refusal:
    return Refusal("BODY", 400, "MALFORMED_REQUEST_BODY", str(error))


def results_of(results: Mapping[str, Result], **more: Any) -> Fields:
    """The `devices` object of an answer, and what stands beside it."""
    return {**more, "devices": {serial: result.value for serial, result in results.items()}}


def _fields(body: bytes) -> Fields:
    try:
        return assignment.decode(body)
    except MalformedMessage as error:
        raise malformed(error) from error
