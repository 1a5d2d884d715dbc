"""A registry record as the device assignment API lists it (apple-services.md 4.5)."""

from functools import lru_cache
from typing import Final

from emulator.apple.records import DeviceRecord, ProfileStatus, Purchase
from emulator.hardware import model, printed_imei
from emulator.wire.assignment import ListedDevice

_NOTHING: Final = Purchase()
_FAMILIES: Final = {
    "iPhone": "iPhone",
    "iPad": "iPad",
    "iPod": "iPod",
    "AppleTV": "AppleTV",
    "Mac": "Mac",
    "iMac": "Mac",
    "RealityDevice": "Vision",
}
_SYSTEMS: Final = {"iPad": "iPadOS", "AppleTV": "tvOS", "Mac": "OSX", "Vision": "visionOS"}


@lru_cache(maxsize=512)
def family_of(product_type: str | None) -> str:
    """`device_family` of a product type such as `iPad13,18`; what nobody knows is an iPhone."""
    name = (product_type or "").rstrip("0123456789,")
    if name.startswith("Mac"):
        return "Mac"
    return _FAMILIES.get(name, "iPhone")


@lru_cache(maxsize=512)
def _names(product_type: str | None) -> tuple[str, str, str]:
    """Model, family and system."""
    known = None if product_type is None else model(product_type)
    family = family_of(product_type)
    name = known.name if known is not None else product_type or family
    return name, family, _SYSTEMS.get(family, "iOS")


def listed(record: DeviceRecord) -> ListedDevice:
    """What a server that may see the device is told of it."""
    purchase, hardware = record.purchase or _NOTHING, record.hardware
    name, family, system = _names(record.product_type)
    profile = record.profile.uuid if record.profile is not None else record.removed_profile
    pushed = record.profile_status is ProfileStatus.PUSHED
    imeis = () if hardware is None else (hardware.imei, hardware.imei2)
    return ListedDevice(
        serial_number=record.serial_number,
        model=name,
        description=purchase.description or name.upper(),
        color=purchase.color or "",
        asset_tag=purchase.asset_tag or "",
        os=system,
        device_family=family,
        profile_status=record.profile_status.value,
        profile_uuid=profile,
        profile_assign_time=record.profile_assign_time if profile else None,
        profile_push_time=record.profile_push_time if pushed else None,
        device_assigned_date=record.assigned_date,
        device_assigned_by=record.assigned_by,
        mdm_migration_deadline=purchase.migration_deadline,
        imei=tuple(printed_imei(imei) for imei in imeis if imei),
        meid=(hardware.meid,) if hardware is not None and hardware.meid else (),
        wifi_mac_address=_mac(hardware.wifi_mac if hardware else None),
        bluetooth_mac_address=_mac(hardware.bluetooth_mac if hardware else None),
        is_replacement_device=True if purchase.replaces else None,
    )


def _mac(text: str | None) -> str | None:
    return None if text is None else text.upper()
