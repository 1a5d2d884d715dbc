"""InstalledApplicationList (mdm.md 5.3)."""

from datetime import datetime
from typing import Final

from emulator.device.commands.outcome import Outcome
from emulator.device.device import App, Device
from emulator.wire.command import Command
from emulator.wire.fields import Fields, optional, optional_list

# Since which OS an item may carry a key; those without an entry were always there.
KEY_SINCE: Final = {
    "IsValidated": "9.2",
    "ExternalVersionIdentifier": "11.0",
    "AdHocCodeSigned": "11.3",
    "AppStoreVendable": "11.3",
    "BetaApp": "11.3",
    "DeviceBasedVPP": "11.3",
    "HasUpdateAvailable": "11.3",
    "IsAppClip": "16.0",
}
ONLY_ON_REQUEST: Final = frozenset({"IsAppClip"})  # captures never show a defaulted key unasked


def installed_application_list(device: Device, command: Command, now: datetime) -> Outcome:
    """Third-party apps; `Identifiers` and `ManagedAppsOnly` choose apps, `Items` (14.0) chooses keys."""
    identifiers = optional_list(command.fields, "Identifiers", str)
    managed_only = optional(command.fields, "ManagedAppsOnly", bool) or False
    items = optional_list(command.fields, "Items", str) if device.runs("14.0") else None
    listed = [
        _item(device, app, items)
        for app in device.apps
        if (identifiers is None or app.identifier in identifiers)
        and (app.managed or not managed_only)
    ]
    return Outcome(fields={"InstalledApplicationList": listed})


def _item(device: Device, app: App, items: tuple[str, ...] | None) -> Fields:
    values: Fields = {
        "AdHocCodeSigned": False,
        "AppStoreVendable": not app.device_licensed,
        "BetaApp": False,
        "BundleSize": app.bundle_size,
        "DeviceBasedVPP": app.device_licensed,
        "DynamicSize": app.dynamic_size,
        "ExternalVersionIdentifier": app.external_version_identifier,
        "HasUpdateAvailable": False,
        "Identifier": app.identifier,
        "Installing": False,
        "IsAppClip": False,
        "IsValidated": True,
        "Name": app.name,
        "ShortVersion": app.short_version,
        "Version": app.version,
    }
    return {
        key: value
        for key, value in values.items()
        if device.runs(KEY_SINCE.get(key, "1.0"))
        and (
            key == "Identifier"
            or (key in items if items is not None else key not in ONLY_ON_REQUEST)
        )
    }
