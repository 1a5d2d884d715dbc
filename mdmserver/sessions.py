"""MDM sessions: from Idle to the empty answer, one command in flight (mdm.md 4.1).

The order of a session: the two queries, the mends they call for, a second look when a mend was acknowledged, the queue, and,
for a device that waits in Setup Assistant, DeviceConfigured as the last command.
"""

import asyncio
from collections import deque
from dataclasses import dataclass, field
from typing import Final
from weakref import WeakValueDictionary

import structlog

from certs.clock import Clock
from emulator.wire.command import Response, Status, encode_command
from mdmserver.devices import command_of, queued
from mdmserver.enforcement import Answers, Enforcement, Question, mend_succeeded
from mdmserver.policy import Rule
from mdmserver.store.base import (
    CommandState,
    DeviceRecord,
    DeviceState,
    Origin,
    QueuedCommand,
    Store,
)

log = structlog.get_logger()

FINAL_STATES: Final = {
    Status.ACKNOWLEDGED: CommandState.ACKNOWLEDGED,
    Status.ERROR: CommandState.ERROR,
    Status.COMMAND_FORMAT_ERROR: CommandState.FORMAT_ERROR,
    Status.NOT_NOW: CommandState.NOT_NOW,
}
MENDS: Final[tuple[Origin, ...]] = ("policy",)
QUEUE: Final[tuple[Origin, ...]] = ("setup", "admin")


@dataclass(slots=True)
class Session:
    """What is known about one device between its Idle and the empty answer; lost with the process, and not missed."""

    to_ask: deque[Question]
    asked: tuple[str, Question] | None = None  # CommandUUID of the query in flight
    answers: Answers = field(default_factory=dict)
    judged: bool = False
    verifying: bool = False
    mended: set[Rule] = field(default_factory=set)  # acknowledged in this session
    refused: set[str] = field(default_factory=set)  # CommandUUIDs answered NotNow
    query_put_off: bool = False


class Sessions:
    """All sessions in progress."""

    def __init__(self, store: Store, enforcement: Enforcement, clock: Clock) -> None:
        self._store = store
        self._enforcement = enforcement
        self._clock = clock
        self._open: dict[str, Session] = {}
        # One request of a device at a time, also from a device that sends two.
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    @property
    def open_count(self) -> int:
        return len(self._open)

    async def respond(self, device: DeviceRecord, response: Response, raw: bytes) -> bytes | None:
        """Take one message of a device; the next command, or None when the session is over."""
        lock = self._turns.setdefault(device.udid, asyncio.Lock())
        async with lock:
            session = self._open.get(device.udid)
            if session is None or response.status is Status.IDLE:
                # A first message may also be a result that could not be delivered in an earlier session.
                session = Session(to_ask=deque(self._enforcement.questions(device)))
                self._open[device.udid] = session
                await self._store.touch(device.udid, self._clock.now())
            if response.status is not Status.IDLE:
                await self._answered(session, device, response, raw)
            body = await self._next(session, device)
            if body is None and self._open.get(device.udid) is session:
                del self._open[device.udid]  # else a CheckOut or a new life was quicker
            return body

    def forget(self, udid: str) -> None:
        """The device begins a new life or has left."""
        self._open.pop(udid, None)

    async def _answered(
        self, session: Session, device: DeviceRecord, response: Response, raw: bytes
    ) -> None:
        uuid = response.command_uuid or ""
        if session.asked is not None and session.asked[0] == uuid:
            _, question = session.asked
            session.asked = None
            if response.status is Status.ACKNOWLEDGED:
                session.answers[question] = response
            else:
                session.query_put_off |= response.status is Status.NOT_NOW
                log.warning(
                    "query_refused",
                    udid=device.udid,
                    query=question.value,
                    status=response.status.value,
                )
            return
        if session.asked is not None:
            # The device never saw that query: the connection broke, and it sends its last result again.
            session.to_ask.appendleft(session.asked[1])
            session.asked = None
        recorded = await self._store.record_result(
            device.udid, uuid, FINAL_STATES[response.status], raw, self._clock.now()
        )
        if recorded is None:
            # Accepted all the same (mdm.md 12.7): refusing would make the device keep it for ever.
            log.info("result_of_unknown_command", udid=device.udid, command=uuid)
        elif not recorded.first:
            log.info("result_repeated", udid=device.udid, command=uuid)
        elif response.status is Status.NOT_NOW:
            session.refused.add(uuid)
        else:
            await self._finished(session, device, recorded.command, response)

    async def _finished(
        self, session: Session, device: DeviceRecord, command: QueuedCommand, response: Response
    ) -> None:
        log.info(
            "command_finished",
            udid=device.udid,
            request_type=command.request_type,
            status=response.status.value,
            error=_top_error(response),
        )
        acknowledged = response.status is Status.ACKNOWLEDGED
        if command.request_type == "DeviceConfigured" and acknowledged:
            await self._store.configured(device.udid)
            log.info("device_configured", udid=device.udid)
        if command.rule is None or command.state is CommandState.WITHDRAWN:
            return
        if mend_succeeded(response):
            session.mended.add(Rule(command.rule))
        else:
            await self._enforcement.mend_refused(device, Rule(command.rule))

    async def _next(self, session: Session, device: DeviceRecord) -> bytes | None:
        if (query := await self._query(session, device)) is not None:
            return query
        if (mend := await self._from_queue(session, device, MENDS)) is not None:
            return mend
        if session.mended and not session.verifying:
            session.verifying = True
            session.judged = False
            session.to_ask.append(Question.INFORMATION)
            if Rule.LOCK in session.mended:
                session.to_ask.append(Question.PROFILES)
            return await self._query(session, device)
        if (command := await self._from_queue(session, device, QUEUE)) is not None:
            return command
        if await self._release(session, device):
            return await self._from_queue(session, device, QUEUE)
        return None

    async def _query(self, session: Session, device: DeviceRecord) -> bytes | None:
        """The next question; once all are answered, what follows from the answers."""
        if session.to_ask:
            question = session.to_ask.popleft()
            command = question.command()
            session.asked = (command.command_uuid, question)
            return encode_command(command)
        if not session.judged:
            session.judged = True
            answers, session.answers = session.answers, {}
            if session.verifying:
                await self._enforcement.verify(device, answers, session.mended)
            else:
                await self._enforcement.judge(device, answers)
        return None

    async def _from_queue(
        self, session: Session, device: DeviceRecord, origins: tuple[Origin, ...]
    ) -> bytes | None:
        command = await self._store.next_command(
            device.udid, skip=session.refused, origins=origins, at=self._clock.now()
        )
        if command is None:
            return None
        log.debug("command_sent", udid=device.udid, request_type=command.request_type)
        return command.body

    async def _release(self, session: Session, device: DeviceRecord) -> bool:
        """Queue DeviceConfigured, once per enrollment and only when nothing was put off (bug N06).

        A command that was put off is still open, which the store sees; a query is not in the queue.
        """
        if device.state is not DeviceState.AWAITING_CONFIGURATION or session.query_put_off:
            return False
        command = command_of({"request_type": "DeviceConfigured"})
        return await self._store.enqueue_device_configured(
            queued(command, device.udid, "setup", now=self._clock.now())
        )


def _top_error(response: Response) -> str | None:
    if not response.error_chain:
        return None
    top = response.error_chain[0]
    return f"{top.domain} {top.code}"
