"""DeviceInformation: every query of the iOS schema, answered from the hardware and the settings (mdm.md 5.1).

Unknown queries, and those that the device does not answer or has no value for, are left out; the command is acknowledged
all the same.
"""

from collections.abc import Callable, Sequence
from hashlib import sha256
from random import Random
from typing import Any, Final

from emulator.device.commands.queries import queries
from emulator.device.device import Device
from emulator.device.state import State
from emulator.hardware import printed_imei
from emulator.wire.fields import Fields, present

ATTESTATION: Final = "DevicePropertiesAttestation"

# The network that virtual SIM cards belong to: MCC 001 and MNC 01 are the test network of 3GPP TS 34.108.
CARRIER: Final = "Simulated Mobile"
MCC: Final = "001"
MNC: Final = "01"
CARRIER_SETTINGS: Final = "58.0"

ACCESSIBILITY: Final[Fields] = {
    "BoldTextEnabled": False,
    "IncreaseContrastEnabled": False,
    "ReduceMotionEnabled": False,
    "ReduceTransparencyEnabled": False,
    "TextSize": 4,
    "TouchAccommodationsEnabled": False,
    "VoiceOverEnabled": False,
    "ZoomEnabled": False,
}


def query_responses(device: Device, names: Sequence[str]) -> Fields:
    """The answers to these queries, attestation excepted: that one needs the network."""
    table = queries()
    answers: Fields = {}
    for name in names:
        row = table.get(name)
        if row is not None and name in VALUES and row.answered_by(device):
            answers[name] = VALUES[name](device)
    return present(answers)


def _draw(device: Device, what: str) -> Random:
    """The same numbers for the same device and purpose, whenever it is asked."""
    return Random(f"{device.hardware.serial_number}/{what}")


def _capacity(device: Device) -> float:
    """Base-10 GB on current systems; older ones counted 2^30 and left the system partition out (as captured)."""
    storage = device.hardware.storage_gb
    if device.runs("15.0"):
        return float(storage)
    return storage * 1e9 / 2**30 - 2.887786865234375


def _available(device: Device) -> float:
    return _capacity(device) * _draw(device, "storage").uniform(0.35, 0.85)


def _battery(device: Device) -> float:
    return round(_draw(device, "battery").uniform(0.3, 1.0), 2)


def _technology(device: Device) -> int:
    """0 none, 1 GSM, 3 both GSM and CDMA."""
    if not device.hardware.model.cellular:
        return 0
    return 3 if device.hardware.meid else 1


def _exchange_identifier(device: Device) -> str:
    return sha256(f"eas/{device.hardware.udid}".encode()).hexdigest()[:32].upper()


def _modem(device: Device) -> str | None:
    if not device.hardware.model.cellular:
        return None
    draw = _draw(device, "modem")
    return f"{draw.randint(1, 6)}.{draw.randint(0, 99):02d}.{draw.randint(0, 9):02d}"


def _sim(value: str) -> Callable[[Device], str | None]:
    """What the SIM card says; a Wi-Fi model has none and answers nothing."""
    return lambda device: value if device.hardware.model.cellular else None


def _sim_or_empty(value: str) -> Callable[[Device], str]:
    """MCC and MNC are empty strings where there is no SIM card, as captured from a Wi-Fi iPad."""
    return lambda device: value if device.hardware.model.cellular else ""


def _subscriptions(device: Device) -> list[Fields] | None:
    """One entry for each SIM slot (12.0)."""
    hardware = device.hardware
    if not hardware.model.cellular:
        return None
    first: Fields = {
        "CarrierSettingsVersion": CARRIER_SETTINGS,
        "CurrentCarrierNetwork": CARRIER,
        "CurrentMCC": MCC,
        "CurrentMNC": MNC,
        "ICCID": hardware.iccid,
        "EID": hardware.eid if device.runs("14.0") else None,
        "IMEI": hardware.printed_imei,
        "IsDataPreferred": True,
        "IsRoaming": False,
        "IsVoicePreferred": True,
        "Label": "Primary",
        "LabelID": _slot_label(device, 1),
        "MEID": hardware.meid,
        "PhoneNumber": hardware.phone_number,
        "Slot": "CTSubscriptionSlotOne",
        "SubscriberCarrierNetwork": CARRIER if device.runs("16.0") else None,
    }
    if hardware.imei2 is None:
        return [present(first)]
    second: Fields = {
        "CarrierSettingsVersion": "",
        "CurrentCarrierNetwork": "",
        "CurrentMCC": "",
        "CurrentMNC": "",
        "ICCID": "",
        "EID": first["EID"],
        "IMEI": printed_imei(hardware.imei2),
        "IsDataPreferred": False,
        "IsRoaming": False,
        "IsVoicePreferred": False,
        "Label": "Secondary",
        "LabelID": _slot_label(device, 2),
        "MEID": hardware.meid,
        "PhoneNumber": "",
        "Slot": "CTSubscriptionSlotTwo",
        "SubscriberCarrierNetwork": "" if device.runs("16.0") else None,
    }
    return [present(first), present(second)]


def _slot_label(device: Device, slot: int) -> str:
    digits = sha256(f"slot{slot}/{device.hardware.udid}".encode()).hexdigest()[:32].upper()
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


VALUES: Final[dict[str, Callable[[Device], Any]]] = {
    "UDID": lambda device: device.hardware.udid,
    "OrganizationInfo": lambda device: {},
    "MDMOptions": lambda device: {},
    "LastCloudBackupDate": lambda device: None,  # nobody backs a virtual device up
    "AwaitingConfiguration": lambda device: device.state is State.AWAITING_CONFIGURATION,
    "iTunesStoreAccountIsActive": lambda device: device.settings.store_account is not None,
    "iTunesStoreAccountHash": lambda device: device.settings.store_account,
    "DeviceName": lambda device: device.name,
    "OSVersion": lambda device: device.hardware.os_version,
    "SupplementalOSVersionExtra": lambda device: None,  # no rapid security response installed
    "BuildVersion": lambda device: device.hardware.build,
    "SupplementalBuildVersion": lambda device: device.hardware.build,
    "ModelName": lambda device: device.hardware.model.family,
    "Model": lambda device: device.hardware.model_number,
    "ModelNumber": lambda device: device.hardware.full_model_number,
    "ProductName": lambda device: device.hardware.model.product_type,
    "SerialNumber": lambda device: device.hardware.serial_number,
    "DeviceCapacity": _capacity,
    "AvailableDeviceCapacity": _available,
    "IMEI": lambda device: device.hardware.printed_imei,
    "MEID": lambda device: device.hardware.meid,
    "ModemFirmwareVersion": _modem,
    "CellularTechnology": _technology,
    "BatteryLevel": _battery,
    "IsSupervised": lambda device: device.supervised,
    "IsMultiUser": lambda device: False,
    "IsDeviceLocatorServiceEnabled": lambda device: device.settings.locator_service,
    "IsActivationLockEnabled": lambda device: device.settings.activation_lock,
    "IsDoNotDisturbInEffect": lambda device: device.settings.do_not_disturb,
    "EASDeviceIdentifier": _exchange_identifier,
    "IsCloudBackupEnabled": lambda device: device.settings.cloud_backup,
    "IsMDMLostModeEnabled": lambda device: False,
    "DiagnosticSubmissionEnabled": lambda device: device.settings.diagnostic_submission,
    "AppAnalyticsEnabled": lambda device: device.settings.app_analytics,
    "TimeZone": lambda device: device.settings.time_zone,
    "ICCID": lambda device: device.hardware.iccid,
    "BluetoothMAC": lambda device: device.hardware.bluetooth_mac,
    "WiFiMAC": lambda device: device.hardware.wifi_mac,
    "CurrentCarrierNetwork": _sim(CARRIER),
    "SIMCarrierNetwork": _sim(CARRIER),
    "SubscriberCarrierNetwork": _sim(CARRIER),
    "CarrierSettingsVersion": _sim(CARRIER_SETTINGS),
    "PhoneNumber": lambda device: device.hardware.phone_number,
    "DataRoamingEnabled": lambda device: device.settings.data_roaming,
    "VoiceRoamingEnabled": lambda device: device.settings.voice_roaming,
    "PersonalHotspotEnabled": lambda device: device.settings.personal_hotspot,
    "IsNetworkTethered": lambda device: device.settings.network_tethered,
    "IsRoaming": lambda device: False,
    "SubscriberMCC": _sim_or_empty(MCC),
    "SubscriberMNC": _sim_or_empty(MNC),
    "CurrentMCC": _sim(MCC),
    "CurrentMNC": _sim(MNC),
    "ServiceSubscriptions": _subscriptions,
    "SoftwareUpdateDeviceID": lambda device: device.hardware.model.product_type,
    "SoftwareUpdateSettings": lambda device: {"RecommendationsCadence": 0},
    "AccessibilitySettings": lambda device: dict(ACCESSIBILITY),
}
