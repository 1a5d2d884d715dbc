"""Settings: an array of items in, an array of results out, each with its own status (mdm.md 5.6)."""

from datetime import datetime
from typing import Final

from emulator.device.commands.outcome import Outcome, error_items
from emulator.device.device import Device
from emulator.device.error_chains import CHAPERONE, SETTINGS, CommandRefused, refused
from emulator.wire.command import Command, Status
from emulator.wire.fields import Fields, required, required_list

NOT_SUPERVISED: Final = (CHAPERONE, 29000, "The device is not supervised.")


def settings(device: Device, command: Command, now: datetime) -> Outcome:
    """Apply every item in order; a failed item does not stop the next, and the command is acknowledged."""
    items = required_list(command.fields, "Settings", dict)
    names = [required(item, "Item", str, f"Settings[{index}].") for index, item in enumerate(items)]
    results = [_result(device, name, item) for name, item in zip(names, items, strict=True)]
    return Outcome(fields={"Settings": results})


def _result(device: Device, name: str, item: Fields) -> Fields:
    try:
        if name != "DeviceName":
            raise refused(28000, f"“{name}” is not a valid settings item.", SETTINGS)
        _device_name(device, item)
    except CommandRefused as error:
        chain = [entry.to_fields() for entry in error_items(error.chain)]
        return {"ErrorChain": chain, "Item": name, "Status": Status.ERROR.value}
    return {"Item": name, "Status": Status.ACKNOWLEDGED.value}


def _device_name(device: Device, item: Fields) -> None:
    if not device.supervised:
        cannot_set = (SETTINGS, 28002, "The device name could not be set.")
        raise CommandRefused([cannot_set, NOT_SUPERVISED])
    name = item.get("DeviceName")
    if not isinstance(name, str) or not name:
        raise refused(12008, "DeviceName: expected a string that is not empty")
    device.name = name
