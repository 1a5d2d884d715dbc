"""The life of a device with us: begins with Authenticate, is complete with TokenUpdate, ends with CheckOut.

Each step changes the store in one transaction, and only for the device whose certificate asked (mdm.md 3, 4.4, 12).
"""

import asyncio
import uuid
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, Final

import structlog

from certs.clock import Clock
from certs.errors import MalformedMessage
from certs.revocation import OwnRevocations
from emulator.hardware import version_key
from emulator.wire.checkin import Authenticate, Sender, TokenUpdate
from emulator.wire.command import Command, encode_command
from mdmserver.client_identity import Caller
from mdmserver.errors import CertificateRefused, MarkedToUnenroll, UnknownDevice
from mdmserver.store.base import (
    DeviceRecord,
    DeviceState,
    Origin,
    PushInfo,
    QueuedCommand,
    Setup,
    Store,
)

log = structlog.get_logger()

UNRECOGNIZED_DEVICE_SINCE: Final = version_key("17.0")  # com.apple.unrecognized.device (mdm.md 1f)


class Devices:
    """The devices of one server."""

    def __init__(
        self,
        store: Store,
        *,
        clock: Clock,
        revocations: OwnRevocations,
        setup_commands: Sequence[dict[str, Any]] = (),
        wake: Callable[[str], None] = lambda udid: None,
    ) -> None:
        """`wake` is told of each device that has just become reachable by push."""
        self._store = store
        self._clock = clock
        self._revocations = revocations
        self._setup_commands = tuple(setup_commands)
        self._wake = wake

    async def begin(self, message: Authenticate, caller: Caller) -> None:
        """Bind the certificate and forget an earlier life. Raises CertificateRefused or MalformedMessage."""
        udid = device_udid(message)
        issued = caller.issued
        _same_device(udid, caller)
        earlier = await self._store.device(udid)
        same_life = earlier is not None and (
            issued.purpose == "renewal" or earlier.certificate_sha256 == issued.sha256
        )
        if earlier is not None and earlier.unenroll and same_life:
            raise _marked(earlier)
        await self._check_renewal(earlier, caller)
        version = await self._store.profile_version(issued.profile_version)
        if message.topic != version.topic:
            raise MalformedMessage("Topic", version.topic, message.topic)
        if message.serial_number is not None and message.serial_number != issued.serial:
            raise CertificateRefused(
                f"was issued to serial number {issued.serial}, Authenticate says "
                f"{message.serial_number}"
            )
        now = self._clock.now()
        await self._store.begin(
            DeviceRecord(
                udid=udid,
                serial=issued.serial,
                product=message.product_name or issued.product,
                os_version=message.os_version or issued.os_version,
                build=message.build_version or issued.build,
                state=DeviceState.AUTHENTICATED,
                certificate_sha256=issued.sha256,
                kind=issued.kind,
                issuer=issued.issuer,
                profile_version=issued.profile_version,
                authenticated_at=now,
                last_seen=now,
                topic=message.topic,
            )
        )
        log.info("authenticated", udid=udid, serial=issued.serial, identity=issued.kind)

    async def complete(self, message: TokenUpdate, caller: Caller) -> None:
        """Store where to push to; the first of a life ends the enrollment."""
        device = await self.known(message, caller)
        if message.topic != device.topic:
            raise MalformedMessage("Topic", device.topic or "", message.topic)
        state = _after_token_update(device.state, message.awaiting_configuration)
        push = PushInfo(
            topic=message.topic,
            token=message.token,
            magic=message.push_magic,
            unlock_token=message.unlock_token,
        )
        first = device.state is DeviceState.AUTHENTICATED
        now = self._clock.now()
        setup = Setup(commands=self._setup(device.udid)) if first else Setup()
        await self._store.complete(device.udid, push, state, now, setup)
        log.info("token_update", udid=device.udid, state=state.value, first=first)
        if first:
            self._wake(device.udid)

    async def end(self, message: Sender, caller: Caller) -> None:
        """The device says goodbye; also one that an admin marked to unenroll may."""
        udid = device_udid(message)
        device = await self._bound(udid, caller)
        await self._store.end(device.udid, self._clock.now())
        log.info("checked_out", udid=udid)

    async def known(self, message: Sender, caller: Caller) -> DeviceRecord:
        """The device that speaks. Raises CertificateRefused, UnknownDevice or MarkedToUnenroll."""
        device = await self._bound(device_udid(message), caller)
        if device.unenroll:
            if device.state is not DeviceState.CHECKED_OUT:
                await self._store.end(device.udid, self._clock.now())
                log.info("unenrolled", udid=device.udid)
            raise _marked(device)
        if device.state is DeviceState.CHECKED_OUT:
            raise UnknownDevice(device.udid, "has checked out")
        return device

    async def enrolled(self, message: Sender, caller: Caller) -> DeviceRecord:
        """As `known`, and its TokenUpdate has come: only then is it served commands."""
        device = await self.known(message, caller)
        if device.state is DeviceState.AUTHENTICATED:
            raise UnknownDevice(device.udid, "has not sent TokenUpdate yet")
        return device

    async def _bound(self, udid: str, caller: Caller) -> DeviceRecord:
        issued = caller.issued
        _same_device(udid, caller)
        device = await self._store.device(udid)
        if device is None:
            raise UnknownDevice(udid, "has not sent Authenticate")
        if device.certificate_sha256 == issued.sha256:
            return device
        if issued.purpose != "renewal":
            raise CertificateRefused(f"{udid} has not sent Authenticate with this one")
        await self._check_renewal(device, caller)
        # A profile that was sent again brought a new identity; from its first use on it is the device's.
        await self._store.rebind(udid, issued)
        log.info("identity_renewed", udid=udid, certificate=issued.sha256.hex()[:16])
        return await self._store.device(udid) or device

    async def _check_renewal(self, device: DeviceRecord | None, caller: Caller) -> None:
        """A renewed identity counts as long as the one before it: whoever had its key could ask for it. Raises CertificateRefused."""
        bound = None if device is None else device.certificate_sha256
        if device is None or bound is None or caller.issued.purpose != "renewal":
            return
        if await asyncio.to_thread(self._revocations.is_revoked_fingerprint, bound):
            raise CertificateRefused(
                f"that of {device.udid} is revoked, and with it this later one: it has to enroll again"
            )

    def _setup(self, udid: str) -> tuple[QueuedCommand, ...]:
        now = self._clock.now()
        return tuple(
            queued(command_of(fields), udid, "setup", now=now) for fields in self._setup_commands
        )


def device_udid(message: Sender) -> str:
    """The UDID of a message on the device channel. Raises MalformedMessage for the others, which are not served here."""
    if message.udid is None:
        raise MalformedMessage(
            "UDID", "a UDID: User Enrollment is not offered here", "EnrollmentID"
        )
    if message.is_user_channel:
        raise MalformedMessage("UserID", "none: the user channel is not served here")
    return message.udid


def command_of(fields: dict[str, Any]) -> Command:
    """A command written as `{"request_type": …, parameters…}`, under a new CommandUUID."""
    return Command(
        command_uuid=str(uuid.uuid4()).upper(),
        request_type=fields["request_type"],
        fields={key: value for key, value in fields.items() if key != "request_type"},
    )


def queued(
    command: Command, udid: str, origin: Origin, *, now: datetime, rule: str | None = None
) -> QueuedCommand:
    """A command as the queue holds it."""
    return QueuedCommand(
        uuid=command.command_uuid,
        udid=udid,
        request_type=command.request_type,
        body=encode_command(command),
        origin=origin,
        rule=rule,
        queued_at=now,
    )


def _same_device(udid: str, caller: Caller) -> None:
    if caller.issued.udid != udid:
        raise CertificateRefused(f"was issued to {caller.issued.udid}, the message says {udid}")


def _marked(device: DeviceRecord) -> MarkedToUnenroll:
    typed = version_key(device.os_version or "") >= UNRECOGNIZED_DEVICE_SINCE
    return MarkedToUnenroll(device.udid, typed=typed)


def _after_token_update(state: DeviceState, awaiting: bool | None) -> DeviceState:
    """A missing AwaitingConfiguration changes nothing (mdm.md 3.2); only an enrollment can start to wait."""
    match state, awaiting:
        case DeviceState.AUTHENTICATED, True:
            return DeviceState.AWAITING_CONFIGURATION
        case DeviceState.AWAITING_CONFIGURATION, None | True:
            return DeviceState.AWAITING_CONFIGURATION
        case _:
            return DeviceState.ENROLLED
