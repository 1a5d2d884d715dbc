"""A device added with Apple Configurator: how it joins an organization, and how its user leaves again (apple-services.md 3.4, 3.6)."""

from datetime import UTC, datetime
from typing import Final

import structlog

from emulator.device.cloud_service import ask_once
from emulator.device.device import Device
from emulator.device.surroundings import Surroundings
from emulator.device.unenrollment import leave
from emulator.errors import EmulatorError, IllegalTransition
from emulator.wire import provisional
from emulator.wire.device_request import Operation

log = structlog.get_logger()

LEAVE: Final = "provisional_leave"


class LeavingDenied(EmulatorError):
    """Settings offers no way out of the remote management."""

    def __init__(self, serial_number: str, reason: str) -> None:
        self.serial_number = serial_number
        self.reason = reason
        super().__init__(f"{serial_number}: {reason}")


async def enroll_provisionally(device: Device, surroundings: Surroundings, nonce: str) -> datetime:
    """What the host asks for with `EstablishProvisionalEnrollment`; returns when the period ends.

    The device must be activated; its configuration comes when Setup Assistant asks for it. Raises CloudConfigurationError.
    """
    if device.keychain.device is None:
        raise IllegalTransition("a device that is not activated cannot join an organization")
    apple = surroundings.apple
    answer = await ask_once(
        device,
        surroundings,
        apple.provisional_url if apple else None,
        Operation.ENROLL,
        step=provisional.ENROLL_STEP,
        nonce=nonce,
    )
    milliseconds = provisional.decode_enrolled(answer.status, answer.body)
    until = datetime.fromtimestamp(milliseconds / 1000, UTC)
    log.info("joined_provisionally", until=until.isoformat(), **device.facts())
    return until


async def leave_provisionally(device: Device, surroundings: Surroundings) -> None:
    """Settings, Remote Management, Leave: out of the organization, supervision and management.

    Raises LeavingDenied where Settings has no such item, CloudConfigurationError when the service says no; then nothing changed.
    """
    serial, until = device.hardware.serial_number, device.provisional_until
    if until is None:
        raise LeavingDenied(serial, "the device was not added provisionally")
    if not device.is_provisional(surroundings.clock.now()):
        raise LeavingDenied(serial, f"the provisional period ended at {until:%Y-%m-%d %H:%M} UTC")
    apple = surroundings.apple
    answer = await ask_once(
        device,
        surroundings,
        apple.cloud_configuration_url if apple else None,
        Operation.UNENROLL,
        step=LEAVE,
    )
    provisional.require_done(answer.status, answer.body, LEAVE)
    log.warning("left_provisionally", **device.facts())
    if device.managed:
        await leave(device, surroundings)
    device.cloud_configuration = None
    await surroundings.checkpoint(device)
