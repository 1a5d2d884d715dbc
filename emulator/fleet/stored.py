"""A fleet's store looked at without opening a door: its devices, and what they would say of themselves."""

from pathlib import Path

from certs.clock import SystemClock
from emulator.device.device import Device
from emulator.device.snapshot import thaw
from emulator.errors import ConfigurationError
from emulator.fleet.run import STORE_NAME, UNPROVISIONED
from emulator.fleet.runner import Outcome, describe
from emulator.fleet.store import FleetStore


async def stored_devices(state: Path) -> list[Device]:
    """The devices of a store as they are, without opening a door. Raises ConfigurationError when there is none."""
    path = state / STORE_NAME
    if not path.exists():
        raise ConfigurationError(str(path), ["does not exist: enroll a fleet first"])
    async with FleetStore(path) as store:
        return [thaw(row.snapshot) for row in await store.rows() if row.state != UNPROVISIONED]


async def stored_outcomes(state: Path) -> list[Outcome]:
    """What every stored device would say of itself."""
    now = SystemClock().now()
    return [describe(device, now) for device in await stored_devices(state)]


async def stored_device(state: Path, name: str) -> Device:
    """One stored device by serial number or UDID."""
    for device in await stored_devices(state):
        if name in (device.hardware.serial_number, device.hardware.udid):
            return device
    raise ConfigurationError(str(state / STORE_NAME), [f"no device {name}"])
