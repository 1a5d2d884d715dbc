"""DeviceConfigured: the end of the pane that waits for the server (mdm.md 5.7)."""

from datetime import datetime

from emulator.device.commands.outcome import ACKNOWLEDGED, Outcome
from emulator.device.device import Device
from emulator.device.error_chains import refused
from emulator.device.state import Event, State
from emulator.wire.command import Command


def device_configured(device: Device, command: Command, now: datetime) -> Outcome:
    """Leave Setup Assistant; an error for a device that does not wait."""
    if device.state is not State.AWAITING_CONFIGURATION:
        raise refused(12008, "The device is not awaiting configuration.")
    device.apply(Event.DEVICE_CONFIGURED)
    return ACKNOWLEDGED
