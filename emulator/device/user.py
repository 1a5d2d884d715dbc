"""What the person who holds a device can do in Settings."""

from typing import Final

import structlog

from emulator.device.device import Device
from emulator.device.provisional import leave_provisionally
from emulator.device.surroundings import Surroundings
from emulator.device.unenrollment import leave
from emulator.errors import EmulatorError

log = structlog.get_logger()

NOT_INSTALLED: Final = "no such profile is installed"


class RemovalDenied(EmulatorError):
    """Settings shows no Remove button for this profile."""

    def __init__(self, identifier: str, reason: str) -> None:
        self.identifier = identifier
        self.reason = reason
        super().__init__(f"{identifier}: {reason}")


def rename(device: Device, name: str) -> None:
    """Settings, General, About, Name."""
    device.name = name
    log.info("renamed_by_user", name=name, **device.facts())


async def remove_profile(device: Device, identifier: str, surroundings: Surroundings) -> None:
    """Remove a profile; with the enrollment profile goes the management. Raises RemovalDenied."""
    profile = device.profiles.find(identifier)
    if profile is None:
        raise RemovalDenied(identifier, NOT_INSTALLED)
    if profile.enrollment and device.is_provisional(surroundings.clock.now()):
        await leave_provisionally(device, surroundings)
    elif profile.enrollment:
        if device.removal_forbidden:
            log.warning("removal_denied", profile=identifier, **device.facts())
            raise RemovalDenied(identifier, "this device is locked to its management")
        await leave(device, surroundings)
    else:
        if device.supervised and profile.removal_disallowed:
            log.warning("removal_denied", profile=identifier, **device.facts())
            raise RemovalDenied(identifier, "the profile forbids its removal")
        device.profiles.remove(identifier)
        device.keychain.remove_profile(identifier)
    await surroundings.checkpoint(device)


def erase(device: Device) -> None:
    """Settings, General, Reset: nobody is told."""
    device.erase()
