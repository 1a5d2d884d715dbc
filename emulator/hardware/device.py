"""Who one virtual device is: a model, a system on it, and every number that names it, all from one seed."""

import dataclasses
import random
from dataclasses import dataclass
from typing import Any, Final, Self

from certs.errors import MalformedMessage
from emulator.hardware import identifiers
from emulator.hardware.choice import choose
from emulator.hardware.models import Model, model
from emulator.hardware.releases import acme_capable, os_name
from emulator.hardware.versions import version_key

REGION: Final = "LL/A"  # United States
UNLISTED_ORDER_NUMBER: Final = (
    "XSIM1"  # for models whose order numbers nobody knows; Apple uses no X
)
INTRODUCED: Final = {8: 2014, 9: 2015, 10: 2016, 11: 2017, 12: 2018, 13: 2019, 14: 2020}


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardware:
    """A device as it leaves the factory, with the system that is on it now."""

    model: Model
    os_version: str
    build: str
    os_name: str  # "iOS" or "iPadOS"
    serial_number: str
    udid: str
    ecid: int
    imei: str | None  # 15 digits; None without a modem
    imei2: str | None  # the second line of iPhones with eSIM
    meid: str | None  # 14 hex digits, upper case, where there is a CDMA radio
    iccid: str | None
    eid: str | None
    phone_number: str | None
    wifi_mac: str
    bluetooth_mac: str
    ethernet_mac: str
    storage_gb: int
    model_number: str  # order number without region, "MLPF3"
    region_info: str  # "LL/A"
    regulatory_model: str  # "A2633"
    device_class: str  # "iPhone" or "iPad"

    @classmethod
    def from_seed(
        cls,
        seed: int,
        index: int = 0,
        *,
        product_type: str | None = None,
        os_version: str | None = None,
        build: str | None = None,
        serial_number: str | None = None,
    ) -> Self:
        """The device number `index` of the fleet `seed`: always the same one, and no two of a fleet share a number.

        What is named overrides the choice and leaves the rest as it was. `os_version` with `build` may be a pair that no table
        has. Raises ConfigurationError with every mistake.
        """
        rng = random.Random(f"device {seed}/{index}")
        # Drawn in this order whatever is overridden, so that no choice disturbs another.
        picks = [rng.getrandbits(64) for _ in range(5)]
        chosen, version, build = choose(
            product_type, os_version, build, serial_number, picks[0], picks[1]
        )
        wifi, bluetooth, ethernet = identifiers.mac_addresses(index, seed)
        serial = serial_number or _serial_number(chosen, index, seed)
        chip_number = identifiers.ecid(index, seed)
        order_numbers = chosen.model_numbers or (UNLISTED_ORDER_NUMBER,)
        imei = identifiers.imei(index, seed) if chosen.cellular else None
        two_lines = chosen.esim and chosen.family == "iPhone"
        return cls(
            model=chosen,
            os_version=version,
            build=build,
            os_name=os_name(chosen.family, version),
            serial_number=serial,
            udid=(
                identifiers.chip_udid(chosen.chip_id, chip_number)
                if chosen.udid_style == "8-16"
                else identifiers.hashed_udid(serial, chip_number, wifi, bluetooth)
            ),
            ecid=chip_number,
            imei=imei,
            imei2=identifiers.imei(index, seed, slot=2) if two_lines else None,
            meid=imei[:14] if imei and chosen.has_meid else None,  # as devices with both have it
            iccid=identifiers.iccid(index, seed) if chosen.cellular else None,
            eid=identifiers.eid(index, seed) if chosen.esim else None,
            phone_number=identifiers.phone_number(index, seed) if chosen.cellular else None,
            wifi_mac=wifi,
            bluetooth_mac=bluetooth,
            ethernet_mac=ethernet,
            storage_gb=chosen.storage_gb[picks[2] % len(chosen.storage_gb)],
            model_number=order_numbers[picks[3] % len(order_numbers)],
            region_info=REGION,
            regulatory_model=chosen.regulatory[picks[4] % len(chosen.regulatory)],
            device_class=chosen.family,
        )

    @property
    def attests(self) -> bool:
        """Chip and system can prove what they are (ACME `device-attest-01`)."""
        return acme_capable(self.model.product_type, os_version=self.os_version, build=self.build)

    @property
    def full_model_number(self) -> str:
        """Order number with region, `MLPF3LL/A`."""
        return self.model_number + self.region_info

    @property
    def printed_imei(self) -> str | None:
        """As MachineInfo and Settings show it: `35 391805 123456 1`."""
        return identifiers.printed_imei(self.imei) if self.imei else None

    def updated(self, os_version: str, build: str) -> Self:
        """The same device on another system."""
        return dataclasses.replace(
            self,
            os_version=os_version,
            build=build,
            os_name=os_name(self.model.family, os_version),
        )

    def to_fields(self) -> dict[str, Any]:
        """Plain values for a snapshot; the model by its product type."""
        fields = {name: getattr(self, name) for name in _NAMES}
        fields["product_type"] = self.model.product_type
        return fields

    @classmethod
    def from_fields(cls, fields: dict[str, Any]) -> Self:
        """Undo `to_fields`. Raises MalformedMessage for a snapshot that names an unknown model or lacks a field."""
        known = model(str(fields.get("product_type")))
        if known is None:
            raise MalformedMessage(
                "hardware.product_type", "a known product type", fields.get("product_type")
            )
        missing = [name for name in _NAMES if name not in fields]
        if missing:
            raise MalformedMessage(f"hardware.{missing[0]}", "a value")
        return cls(model=known, **{name: fields[name] for name in _NAMES})


_NAMES: Final = tuple(f.name for f in dataclasses.fields(Hardware) if f.name != "model")


def _serial_number(chosen: Model, index: int, seed: int) -> str:
    if chosen.random_serial:
        return identifiers.random_serial(index, seed)
    return identifiers.structured_serial(
        index,
        seed,
        year=INTRODUCED[version_key(chosen.min_os)[0]],
        configuration=identifiers.configuration_code(chosen.product_type),
    )
