"""One MDM session: from `Idle`, or an undelivered result, to the server's empty answer (mdm.md 4).

A command's effect and its result are one: both are in the checkpoint before the result leaves, so that a device that dies
in between neither loses the result nor runs the command again.
"""

from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Final

import structlog

from certs.transport import HttpResponse
from emulator.config import MAX_COMMANDS_PER_SESSION
from emulator.device.channel import Channel, open_channel
from emulator.device.commands.outcome import Outcome
from emulator.device.commands.power import restart
from emulator.device.commands.registry import run
from emulator.device.device import After, Answer, Device, Outbox
from emulator.device.push import announce_token
from emulator.device.surroundings import Surroundings
from emulator.device.typed_errors import refusal
from emulator.device.unenrollment import ends_management, leave, unenroll
from emulator.errors import EmulatorError, IllegalTransition, PeerRefused
from emulator.wire.command import (
    Command,
    MalformedCommand,
    Response,
    Status,
    decode_command,
    encode_response,
)

log = structlog.get_logger()

IDLE: Final = "idle"
COMMAND: Final = "command"


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionReport:
    """How a session went."""

    commands: int  # commands received, repeated ones included
    not_now: bool  # NotNow was the last thing said: the device comes back by itself (mdm.md 4.2)
    unenrolled: bool


async def check_in(device: Device, surroundings: Surroundings) -> SessionReport:
    """Run one session. Raises PeerRefused or StepTimeout; an undelivered result is kept for the next one."""
    if not device.managed:
        raise IllegalTransition(f"a device that is {device.state.value} has no MDM session")
    if device.enrollment is not None and device.enrollment.token_update_due:
        await announce_token(device, surroundings)
    async with Session(device, surroundings) as session:
        report = await session.run()
    log.debug("session", **device.facts(), commands=report.commands, not_now=report.not_now)
    return report


class Session:
    """The connection of one wake-up and what happened on it so far; `run` again for another session on it."""

    def __init__(self, device: Device, surroundings: Surroundings) -> None:
        self._device = device
        self._surroundings = surroundings
        self._stack = AsyncExitStack()
        self._channel: Channel | None = None
        self._asked: Counter[str] = Counter()
        self._commands = 0
        self._unsaved = False  # an accepted result is still in the last checkpoint's outbox

    async def __aenter__(self) -> "Session":
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._stack.aclose()

    async def run(self) -> SessionReport:
        step, body = IDLE, self._idle()
        after = After.NOTHING
        if self._device.outbox is not None:
            step, body, after = COMMAND, self._device.outbox.body, self._device.outbox.after
        not_now = False
        while True:
            response = await self._deliver(step, body, after)
            if response is None:
                await self._surroundings.checkpoint(self._device)
                return self._report(not_now=False)
            if not response.body:
                break
            step = COMMAND
            body, after, not_now = await self._obey(response)
        if self._unsaved:
            await self._surroundings.checkpoint(self._device)
        return self._report(not_now=not_now)

    def _report(self, *, not_now: bool) -> SessionReport:
        return SessionReport(
            commands=self._commands,
            not_now=not_now,
            unenrolled=self._device.enrollment is None,
        )

    # --- sending

    async def _deliver(self, step: str, body: bytes, after: After) -> HttpResponse | None:
        """Send one message and react to the status (mdm.md 4.3); None when the session is over by what it caused."""
        device = self._device
        if after is After.ERASE:
            await self._last_words(step, body)
            device.erase()
            return None
        channel = await self._open()
        response = await channel.command(step, body)
        if ends_management(device, response):
            unenroll(device)
            return None
        if response.status != 200:
            raise refusal(step, response)
        if device.outbox is not None and device.outbox.body == body:
            device.outbox = None
            self._unsaved = True
        match after:
            case After.UNENROLL:
                await leave(device, self._surroundings)
                return None
            case After.RESTART:
                restart(device)
                return None
        return response

    async def _last_words(self, step: str, body: bytes) -> None:
        """One attempt: the device is erased whatever becomes of it (mdm.md 5.8)."""
        try:
            channel = await self._open()
            response = await channel.command(step, body)
            log.info("erase_acknowledged", status=response.status, **self._device.facts())
        except EmulatorError as error:
            log.warning("erase_unacknowledged", error=str(error), **self._device.facts())

    async def _open(self) -> Channel:
        """The open channel; a new one when a command changed the MDM payload, and its identity with it."""
        if self._channel is not None and self._channel.enrollment is not self._device.enrollment:
            await self._stack.aclose()
            self._stack, self._channel = AsyncExitStack(), None
        if self._channel is None:
            self._channel = await self._stack.enter_async_context(
                open_channel(self._device, self._surroundings)
            )
        return self._channel

    # --- commands

    async def _obey(self, response: HttpResponse) -> tuple[bytes, After, bool]:
        """Run the command in an answer; returns the result to send, what follows it, and whether it is NotNow."""
        self._commands += 1
        if self._commands > MAX_COMMANDS_PER_SESSION:
            raise PeerRefused(
                COMMAND, f"{MAX_COMMANDS_PER_SESSION} commands in one session, and no end of it"
            )
        try:
            command = decode_command(response.body)
        except MalformedCommand as error:
            if error.command_uuid is None:
                # Nothing to answer to: a result without a CommandUUID does not exist (mdm.md 4.1).
                raise PeerRefused(COMMAND, f"not a command: {error}") from error
            log.warning("malformed_command", error=str(error), **self._device.facts())
            outcome = Outcome(status=Status.COMMAND_FORMAT_ERROR)
            return await self._keep(error.command_uuid, "", outcome), After.NOTHING, False
        known = self._device.answered.get(command.command_uuid)
        if known is not None and known.request_type == command.request_type:
            log.debug("command_repeated", command_uuid=command.command_uuid, **self._device.facts())
            return known.body, known.after, False
        outcome = self._fault(command) or await run(self._device, command, self._surroundings)
        log.debug(
            "command",
            request_type=command.request_type,
            command_uuid=command.command_uuid,
            status=outcome.status.value,
            **self._device.facts(),
        )
        if outcome.status is Status.NOT_NOW:
            # Not stored, not remembered: the server sends it again (mdm.md 4.2).
            return self._encoded(command.command_uuid, outcome), After.NOTHING, True
        body = await self._keep(command.command_uuid, command.request_type, outcome)
        return body, outcome.after, False

    async def _keep(self, command_uuid: str, request_type: str, outcome: Outcome) -> bytes:
        """Put the result into the outbox and the memory, and both into the store."""
        body = self._encoded(command_uuid, outcome)
        device = self._device
        device.outbox = Outbox(command_uuid=command_uuid, body=body, after=outcome.after)
        device.remember(
            command_uuid, Answer(request_type=request_type, body=body, after=outcome.after)
        )
        await self._surroundings.checkpoint(device)
        return body

    def _fault(self, command: Command) -> Outcome | None:
        """A device that misbehaves on purpose: action `answer` {status} replaces the honest reply."""
        self._asked[command.request_type] += 1
        action = self._surroundings.faults(
            "device", COMMAND, command, self._asked[command.request_type]
        )
        if action is None or action.name != "answer":
            return None
        return Outcome(status=Status(action.arguments["status"]))

    def _encoded(self, command_uuid: str, outcome: Outcome) -> bytes:
        return encode_response(
            Response(
                udid=self._device.hardware.udid,
                status=outcome.status,
                command_uuid=command_uuid,
                fields=outcome.fields,
                error_chain=outcome.error_chain,
            )
        )

    def _idle(self) -> bytes:
        return encode_response(Response(udid=self._device.hardware.udid, status=Status.IDLE))
