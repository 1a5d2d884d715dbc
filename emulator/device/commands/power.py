"""RestartDevice and EraseDevice: both acknowledge first and act afterwards (mdm.md 5.8)."""

from datetime import datetime

from emulator.device.commands.outcome import Outcome
from emulator.device.device import After, Device
from emulator.wire.command import Command
from emulator.wire.fields import optional


def restart_device(device: Device, command: Command, now: datetime) -> Outcome:
    """Gone after the reply; a device with a passcode comes up locked."""
    return Outcome(after=After.RESTART)


def erase_device(device: Device, command: Command, now: datetime) -> Outcome:
    """One reply, one attempt to send it, then power-on state."""
    for key in ("PreserveDataPlan", "DisallowProximitySetup"):
        optional(command.fields, key, bool)  # a mistyped key is refused before anything is lost
    return Outcome(after=After.ERASE)


def restart(device: Device) -> None:
    """What switching off and on does."""
    device.change(
        restarts=device.settings.restarts + 1,
        locked=device.settings.locked or device.settings.passcode_present,
    )
